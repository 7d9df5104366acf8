"""What came of an edit."""

from __future__ import annotations

from dataclasses import dataclass

from ..outcome import Level, Verdict, done


@dataclass
class EditReport:
    """What the host fills in. targets: how many prompts the footage is edited by; 0 if it is only walked through.
    evaluations: how often the model was evaluated for all of them in the last run."""

    targets: int = 0
    evaluations: int = 0

    def verdict(self, maps: Verdict) -> Verdict:
        """What a user is told. maps: what the transfer of the footage's maps did."""
        if not self.targets:
            walked = f"walked through the clip in {self.evaluations} evaluations"
            return done(f"{walked}; no target prompt is connected")
        edited = f"edited in {self.evaluations} evaluations"
        if maps.level is Level.IDLE:
            return done(f"{edited}, without the clip's maps")
        return Verdict(maps.level, f"{edited}; {maps.text}")
