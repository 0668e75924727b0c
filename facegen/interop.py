r"""Schedulers of diffusers as samplers of facegen: one adapter for all of them.

A scheduler is told betas and asks for noise predictions, eps = (x_t - alpha x_0) / sigma. It scales what it shows the network to unit
variance, so that alpha = (1 + level^2)^-1/2 and sigma = level alpha, whatever scale it keeps its own image in.
"""

from __future__ import annotations

import inspect
import math
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from facegen.diffusion.denoiser import CleanImage, Rescheduled
from facegen.diffusion.discrete import Discrete, Linear
from facegen.diffusion.sampler import Draw, Sampler, Watch, drawn
from facegen.diffusion.schedule import ENDLESS, Schedule
from facegen.errors import UserError, nearest
from facegen.types import PositiveInt

# Where a scheduler has these options: facegen's own conventions, which `options` may overrule ...
CONVENTIONS = {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True, "lower_order_final": True}
# ... and what follows from the model, so that nobody else can say it.
GIVEN = {"trained_betas", "num_train_timesteps", "prediction_type", "beta_schedule", "beta_start", "beta_end"}
STEP = {"self", "model_output", "timestep", "sample"}
ALTERNATIVES = "type sampler.scheduler=UniPCMultistepScheduler, or sampler=ddim, dpmpp_2m or heun"


class DiffusersSampler(Sampler):
    """Any scheduler class of diffusers that walks from noise to image by betas, on any schedule.

    On a schedule without betas, or whose last level is endless (a cosine's; Heun's and PNDM's steps from there explode), it walks the
    levels of `Linear(1000)` instead. `watch` is told x_t in unit variance, `steps` times also where a scheduler asks more often.

    Args:
        scheduler: name of the class, such as "UniPCMultistepScheduler".
        options: arguments of its constructor or of its `step`, such as {"use_karras_sigmas": True} or {"eta": 0.5}.

    Raises UserError for a scheduler or an option that is unknown or cannot work here.
    """

    def __init__(self, scheduler: str, steps: PositiveInt = 50, options: dict | None = None) -> None:
        super().__init__(steps)
        self.scheduler = _scheduler_class(scheduler)
        given, known = dict(options or {}), _parameters(self.scheduler.__init__) - GIVEN - {"self"}
        of_step = _parameters(self.scheduler.step) - STEP - {"generator", "return_dict", "variance_noise"} - known
        self.stochastic = "generator" in _parameters(self.scheduler.step)
        for key in given.keys() - known - of_step:
            wanted = f"{nearest(key, known | of_step)}; it has: {', '.join(sorted(known | of_step))}"
            raise UserError(f"sampler.options.{key} is not an option of {scheduler}{wanted}")
        self.options = {key: value for key, value in (CONVENTIONS | given).items() if key in known}
        self.step_options = {key: value for key, value in given.items() if key in of_step}
        self._over(Linear(max(1000, steps)))  # what cannot work is said now, before a model is loaded or trained

    def _over(self, schedule: Discrete) -> Any:
        """The scheduler, ready to walk over `schedule`."""
        schedule.grid(self.steps)  # refuses more steps than there are times
        name, betas = self.scheduler.__name__, schedule.betas.tolist()
        try:
            scheduler = self.scheduler(trained_betas=betas, num_train_timesteps=len(betas), prediction_type="epsilon", **self.options)
            scheduler.set_timesteps(self.steps)
        except (ValueError, TypeError, NotImplementedError, AssertionError, ImportError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"sampler.options or sampler.steps={self.steps} do not suit {name}, which says: {reason}") from error
        alpha_bar = schedule.alpha(torch.arange(len(betas), dtype=torch.float64)) ** 2
        kept = torch.allclose(scheduler.alphas_cumprod.double(), alpha_bar, rtol=1e-3)
        if not kept or getattr(scheduler.config, "use_flow_sigmas", False):
            raise UserError(f"{name} with sampler.options={self.options} leaves the schedule that the model knows; {ALTERNATIVES}")
        if scheduler.timesteps[0] < scheduler.timesteps[-1]:
            raise UserError(f"sampler.scheduler={name} walks from image to noise; {ALTERNATIVES}")
        if scheduler.timesteps[-1] < 0:  # the rounding of numpy's arange gives diffusers one timestep too many
            whole = max(steps for steps in range(1, self.steps) if len(betas) % steps == 0)
            raise UserError(f"sampler.steps={self.steps} leads {name} below time 0; type sampler.steps={whole}")
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        return scheduler

    def entry(self, schedule: Schedule, start: int) -> tuple[float, float]:
        """alpha and sigma, in the scale of `schedule`, of the image that the walk passes before the step `start`."""
        walked = cast(Discrete, schedule if _finite(schedule) else Linear(1000))
        scheduler = self._over(walked)
        t = scheduler.timesteps[self._skipped(scheduler, start)]
        time = schedule.time_of(walked.level(_time(scheduler, walked, t, _scale(scheduler, t)).double()))
        return float(schedule.alpha(time)), float(schedule.sigma(time))

    def _skipped(self, scheduler: Any, start: int) -> int:
        """How many calls of the network the first `start` steps are; raises UserError where they cannot be left out."""
        calls, order = len(scheduler.timesteps), getattr(scheduler, "order", 1)
        if start and calls > order * self.steps + 1:
            raise UserError(f"{self.scheduler.__name__} begins with steps of another kind, which cannot be left out; type sampler=ddim")
        skipped = start * order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        return skipped

    @torch.no_grad()
    def __call__(self, denoiser: CleanImage, x: Tensor, draw: Draw | None = None, watch: Watch | None = None, start: int = 0) -> Tensor:
        x = x / (math.hypot(*self.entry(denoiser.schedule, start)) if start else denoiser.schedule.prior_std())
        if not _finite(denoiser.schedule):
            denoiser = Rescheduled(denoiser, Linear(1000))
        schedule = cast(Discrete, denoiser.schedule)
        scheduler, seen = self._over(schedule), start
        calls, skipped = len(scheduler.timesteps), self._skipped(scheduler, start)
        for call, t in enumerate(scheduler.timesteps[skipped:], skipped):
            scale = _scale(scheduler, t)
            x = x / scale if call == skipped else x
            x_t, time = scheduler.scale_model_input(x, t), _time(scheduler, schedule, t, scale)
            x_0 = denoiser(x_t, x.new_full((len(x),), float(time)))
            if watch is not None and call * self.steps >= seen * calls:
                watch(seen, x_t, x_0)
                seen += 1
            eps = (x_t - float(schedule.alpha(time)) * x_0) / float(schedule.sigma(time))
            with _Drawing(draw) if self.stochastic else nullcontext():
                x = scheduler.step(eps, t, x, **self.step_options, return_dict=False)[0]
        return x


def _finite(schedule: Schedule) -> bool:
    return isinstance(schedule, Discrete) and schedule.level(torch.tensor(schedule.last, dtype=torch.float64)).item() <= ENDLESS


def _scale(scheduler: Any, t: Tensor) -> float:
    """What the scheduler multiplies its image with at the timestep `t` before the network sees it: 1, or (1 + level^2)^-1/2."""
    return float(scheduler.scale_model_input(torch.ones((), dtype=torch.float64), t))


def _time(scheduler: Any, schedule: Discrete, t: Tensor, scale: float) -> Tensor:
    """The time of the image that is shown at the timestep `t`, by its noise level where the scheduler knows it: timesteps are rounded."""
    if scale < 1:
        return schedule.time_of(torch.tensor(scale, dtype=torch.float64).pow(-2).sub(1).sqrt())
    if hasattr(scheduler, "sigmas"):
        return schedule.time_of(scheduler.sigmas[scheduler.step_index or 0].double())
    return t.double()


class _Drawing(TorchFunctionMode):
    """While it is entered, `torch.randn` of this thread returns what `draw` does: the noise of a scheduler is that of its images."""

    def __init__(self, draw: Draw | None) -> None:
        super().__init__()
        self.draw = draw

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return drawn(self.draw) if func is torch.randn else func(*args, **(kwargs or {}))


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def _scheduler_class(name: str) -> Any:
    """The scheduler class of diffusers with this very name, where it can be a sampler."""
    import diffusers.schedulers
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    names = [other for other in dir(diffusers.schedulers) if other.endswith("Scheduler")]
    if name not in names:
        raise UserError(f"sampler.scheduler must be a scheduler class of diffusers; got {name}{nearest(name, names)}; {ALTERNATIVES}")
    found: Any = getattr(diffusers.schedulers, name, None)
    if not inspect.isclass(found) or not issubclass(found, SchedulerMixin):
        raise UserError(f"sampler.scheduler={name} needs a package or a version of diffusers that is not installed; {ALTERNATIVES}")
    options = _parameters(found.__init__)
    by_betas = {"trained_betas", "prediction_type"} <= options and "noise_sampler_seed" not in options
    if not by_betas or {p.name for p in inspect.signature(found.step).parameters.values() if p.default is p.empty} != STEP:
        raise UserError(f"sampler.scheduler={name} does not walk by betas and noise predictions alone; {ALTERNATIVES}")
    return found
