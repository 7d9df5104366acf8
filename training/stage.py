"""One stage of the training run: a loop that logs, saves itself when time is up, and goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


class OutOfTime(Exception):
    """The time given to this call is over; the stage saved itself and a further call goes on."""


class Stage:
    """Iterate to get the step numbers; `state` (anything with state_dict and load_state_dict) is saved and restored.

    Args:
        work: the folder of checkpoints and the log.
        deadline: `time.monotonic()` value at which to save and raise `OutOfTime`.
    """

    def __init__(self, name: str, steps: int, work: Path, deadline: float, **state: Any) -> None:
        self.name, self.steps, self.deadline, self.state = name, steps, deadline, state
        self.file, self.log_file = work / f"{name}.pt", work / "log.jsonl"
        self.step, self.seconds = 0, 0.0
        self._logged = (0, time.monotonic())
        if self.file.exists():
            saved = torch.load(self.file, map_location="cpu", weights_only=True)
            self.step, self.seconds = saved.pop("step"), saved.pop("seconds")
            for key, value in saved.items():
                state[key].load_state_dict(value)

    @property
    def progress(self) -> float:
        """Share of the steps already done, 0..1."""
        return self.step / self.steps

    def generator(self, device: str) -> torch.Generator:
        """This step's random numbers: the same whether or not the run was interrupted before."""
        return torch.Generator(device).manual_seed(self.step)

    def __iter__(self) -> Iterator[int]:
        start = time.monotonic() - self.seconds
        while self.step < self.steps:
            yield self.step
            self.step += 1
            self.seconds = time.monotonic() - start
            if time.monotonic() > self.deadline and self.step < self.steps:
                self.save()
                raise OutOfTime(f"{self.name}: {self.step} of {self.steps} steps after {self.seconds:.0f} s.")
        self.save()

    def save(self) -> None:
        """Write the checkpoint as a whole file or not at all."""
        part = self.file.with_suffix(".part")
        values = {key: value.state_dict() for key, value in self.state.items()}
        torch.save({"step": self.step, "seconds": self.seconds, **values}, part)
        part.replace(self.file)

    def log(self, **figures: float) -> None:
        """Print a line and append it to the log."""
        line = {"stage": self.name, "step": self.step, "seconds": round(self.seconds, 1)}
        now, (step, then) = time.monotonic(), self._logged
        line["rate"] = round((self.step - step) / (now - then), 3)  # steps per second since the last line
        self._logged = (self.step, now)
        line |= {key: round(float(value), 5) for key, value in figures.items()}
        print(json.dumps(line), flush=True)
        with self.log_file.open("a") as file:
            file.write(json.dumps(line) + "\n")


def learning_rate(progress: float, warm: float = 0.02, cool: float = 0.45) -> float:
    """Factor on the learning rate: a short rise, a plateau, and a linear fall over the last part."""
    return min(1.0, (progress + 1e-3) / warm, max(0.02, (1 - progress) / cool))
