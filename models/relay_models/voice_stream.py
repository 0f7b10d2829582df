"""Several replies spoken side by side, each a row of a `StreamState` and a `VoicePlan`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from relay_models.state import StreamState
from relay_models.voice import Voice
from relay_models.voice_plan import POSITIONS, STEP_FRAMES, Frames, VoicePlan, Window, padded


class VoiceStream:
    """Steps a voice.

    Args:
        model: In evaluation mode.
        speaker: Number of the speaker.
    """

    def __init__(self, model: Voice, *, speaker: int = 0) -> None:
        self._model, self._speaker = model, speaker
        self._weight = model.speakers.weight

    def fresh_state(self, rows: int) -> StreamState:
        """State for `rows` streams."""
        return StreamState(self._model.fresh_tensors(rows))

    def fresh_plan(self, *, speed: float = 1.0) -> VoicePlan:
        """A plan for a row that has been reset."""
        return VoicePlan(self._model.config.size, speed=speed)

    @torch.no_grad()
    def step(self, plans: Sequence[VoicePlan | None], state: StreamState) -> list[NDArray[np.floating]]:
        """Takes every row one step further, as far as its words are known; encodes no more of them than it needs.

        Args:
            plans: Of each row; None leaves the row as it is.
            state: Advanced in place, in the rows that had frames.

        Returns:
            New samples of each row, full scale 1; none while its plan waits for words or has ended. The first step
            gives (STEP_FRAMES - DELAY_FRAMES) hops, later ones STEP_FRAMES.
        """
        taken: dict[int, Frames] = {}
        waiting = {row: plan for row, plan in enumerate(plans) if plan is not None}
        while waiting:
            windows: list[tuple[VoicePlan, Window]] = []
            for row, plan in list(waiting.items()):
                if (frames := plan.take()) is not None:
                    taken[row] = frames
                    del waiting[row]
                elif (window := plan.window()) is not None:
                    windows.append((plan, window))
                else:
                    del waiting[row]
            self._encode(windows)
        return self._speak(taken, state)

    def _encode(self, windows: Sequence[tuple[VoicePlan, Window]]) -> None:
        """Gives plans their next word."""
        if not windows:
            return
        device = self._weight.device
        ids, places = (torch.from_numpy(array).to(device) for array in padded([window for _, window in windows]))
        vectors, lengths = self._model.encode(ids, places, torch.full((len(ids),), self._speaker, device=device))
        for (plan, window), row, counts in zip(windows, vectors.cpu().numpy(), lengths.cpu().numpy(), strict=True):
            plan.encoded(row[window.begin : window.end], counts[window.begin : window.end])

    def _speak(self, taken: dict[int, Frames], state: StreamState) -> list[NDArray[np.floating]]:
        """Samples of the rows that have frames."""
        rows, like = state.rows, self._weight
        spoken: list[NDArray[np.floating]] = [np.zeros(0, np.float32) for _ in range(rows)]
        if not taken:
            return spoken
        vectors = like.new_zeros(rows, STEP_FRAMES, self._model.config.size)
        positions = like.new_zeros(rows, STEP_FRAMES, POSITIONS)
        valid = torch.zeros(rows, STEP_FRAMES, dtype=torch.bool, device=like.device)
        active = torch.zeros(rows, dtype=torch.bool, device=like.device)
        for row, frames in taken.items():
            vectors[row], positions[row] = torch.from_numpy(frames.vectors), torch.from_numpy(frames.positions)
            valid[row], active[row] = torch.from_numpy(frames.valid), True
        samples, _ = self._model.step(vectors, positions, valid, state, active)
        host = samples.cpu().numpy()
        for row, frames in taken.items():
            spoken[row] = host[row, frames.skip : frames.skip + frames.keep]
        return spoken
