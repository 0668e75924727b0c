"""Which reader knows the layout on disk of which data module, by the module's name in `facegen.data.faces`."""

from __future__ import annotations

from facegen.data.celeba import CelebAReader
from facegen.data.ethnicity import EthnicityReader
from facegen.data.ffhq import FFHQReader
from facegen.data.ffhq_aging import FFHQAgingReader
from facegen.data.folder import FolderReader
from facegen.data.records import Reader
from facegen.data.utkface import UTKFaceReader

READERS: dict[str, type[Reader]] = {
    "CelebA": CelebAReader,
    "Ethnicity": EthnicityReader,
    "FFHQ": FFHQReader,
    "FFHQAging": FFHQAgingReader,
    "Folder": FolderReader,
    "UTKFace": UTKFaceReader,
}
