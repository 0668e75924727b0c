"""Any tree of images."""

from __future__ import annotations

from pathlib import Path

from facegen.data.records import File, Reader, Records, is_image, list_files


class FolderReader(Reader):
    """Every image under the root, without labels."""

    name = "folder"
    layout = "images (jpg, jpeg, png, webp, bmp, tif), in any folders"
    crops = ("center", "squash")

    def files(self, root: Path) -> list[File]:
        """All images."""
        return [file for file in list_files(root) if is_image(file)]

    def records(self, root: Path, files: list[File]) -> Records:
        """All of them."""
        return Records([file.path for file in files])
