"""The C library inside the pocketsphinx wheel, called through ctypes.

The wheel's own Python class holds the interpreter lock while it decodes, which would stall the event loop for as long.
Its extension module exports the C functions (pocketsphinx.h), and ctypes gives the lock up during a call.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any, cast

import numpy as np

from relay.audio import EARS_RATE_HZ, Int16Array, samples_in
from relay.engine.ears import Word
from relay.errors import EngineUnavailable, RelayError

DECODER_FRAME_SAMPLES = samples_in(10, EARS_RATE_HZ)

# Cepstral mean of speech through an ordinary microphone: the starting point before a caller's own is known.
TYPICAL_CMN = b"41.00,-5.29,-0.12,5.09,2.48,-4.07,-1.37,-1.78,-5.08,-2.05,-6.45,-1.42,1.17"
_CMN_PRIOR_FRAMES = 500  # CMN_WIN of cmn.h
_ADAPT_PRIOR_FRAMES = 50

# Chosen by word error rate and speed: without the second pass (`fwdflat`) an utterance ends in 15 ms instead of 200 ms,
# and 3,000 hypotheses a frame instead of 30,000 halve the time; neither costs words (1 % absolute at most).
_SETTINGS: dict[str, bool | int] = {"fwdflat": False, "bestpath": True, "maxhmmpf": 3000}

_NGRAM_AUTO = 0  # ngram_model.h


class Sphinx:
    """The C library inside the pocketsphinx wheel, and what decoders share: its functions and the language model."""

    def __init__(self) -> None:
        """Raises EngineUnavailable."""
        try:
            spec = importlib.util.find_spec("pocketsphinx._pocketsphinx")
        except ImportError:
            spec = None
        if spec is None or spec.origin is None:
            raise EngineUnavailable(
                "the pocketsphinx recogniser needs the pocketsphinx package: pip install 'relay-dialogue[baseline]'"
            )
        self._model = Path(spec.origin).parent / "model" / "en-us"
        pointer, text, integer = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        integers = ctypes.POINTER(ctypes.c_int)
        signatures: dict[str, tuple[Any, list[Any]]] = {
            "err_set_loglevel_str": (text, [text]),
            "ps_config_init": (pointer, [pointer]),
            "ps_config_set_str": (pointer, [pointer, text, text]),
            "ps_config_set_int": (pointer, [pointer, text, ctypes.c_long]),
            "ps_config_set_bool": (pointer, [pointer, text, integer]),
            "ps_config_free": (integer, [pointer]),
            "ps_init": (pointer, [pointer]),
            "ps_add_lm": (integer, [pointer, text, pointer]),
            "ps_activate_search": (integer, [pointer, text]),
            "ngram_model_read": (pointer, [pointer, text, integer, pointer]),
            "ngram_model_free": (integer, [pointer]),
            "ps_free": (integer, [pointer]),
            "ps_start_utt": (integer, [pointer]),
            "ps_process_raw": (integer, [pointer, pointer, ctypes.c_size_t, integer, integer]),
            "ps_end_utt": (integer, [pointer]),
            "ps_get_cmn": (text, [pointer, integer]),
            "ps_set_cmn": (integer, [pointer, text]),
            "ps_get_logmath": (pointer, [pointer]),
            "ps_seg_iter": (pointer, [pointer]),
            "ps_seg_next": (pointer, [pointer]),
            "ps_seg_word": (text, [pointer]),
            "ps_seg_frames": (None, [pointer, integers, integers]),
            "ps_seg_prob": (ctypes.c_int32, [pointer, pointer, pointer, pointer]),
            "logmath_exp": (ctypes.c_double, [pointer, integer]),
        }
        try:
            self.c = ctypes.CDLL(spec.origin)
            for name, (result, arguments) in signatures.items():
                function = getattr(self.c, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise EngineUnavailable(
                f"this build of pocketsphinx cannot be used ({error}): install 5.1 or newer"
            ) from error
        self.c.err_set_loglevel_str(b"FATAL")
        # 34 MB, and it caches look-ups: decoders that share it decode on one thread.
        self._language_model: int | None = None

    def decoder(self) -> Decoder:
        """A new decoder; takes about 0.3 s. Raises EngineUnavailable."""
        config = self.c.ps_config_init(None)
        try:
            for name, file in (("hmm", "en-us"), ("dict", "cmudict-en-us.dict")):
                self.c.ps_config_set_str(config, name.encode(), str(self._model / file).encode())
            for name, value in _SETTINGS.items():
                setter = self.c.ps_config_set_bool if isinstance(value, bool) else self.c.ps_config_set_int
                setter(config, name.encode(), int(value))
            handle = self.c.ps_init(config)
            if handle and not self._language_model:
                self._language_model = self.c.ngram_model_read(
                    config, str(self._model / "en-us.lm.bin").encode(), _NGRAM_AUTO, self.c.ps_get_logmath(handle)
                )
        finally:
            self.c.ps_config_free(config)
        if (
            not handle
            or not self._language_model
            or self.c.ps_add_lm(handle, b"words", self._language_model) < 0
            or self.c.ps_activate_search(handle, b"words") < 0
        ):
            raise EngineUnavailable(f"pocketsphinx cannot load its model from {self._model}: reinstall pocketsphinx")
        return Decoder(self.c, handle)

    def free(self) -> None:
        """Frees the language model; all decoders must be freed before."""
        if self._language_model:
            self.c.ngram_model_free(self._language_model)
            self._language_model = None


class Decoder:
    """One decoder of the C library. Calls are not reentrant."""

    def __init__(self, c: ctypes.CDLL, handle: int) -> None:
        self._c = c
        self._handle = handle
        self._logmath = c.ps_get_logmath(handle)

    def begin(self, cmn: bytes) -> None:
        """Begins an utterance from a cepstral mean. Raises RelayError."""
        self._check(self._c.ps_set_cmn(self._handle, cmn))
        self._check(self._c.ps_start_utt(self._handle))

    def feed(self, pcm: Int16Array) -> None:
        """Decodes [samples] int16 at 16 kHz. Raises RelayError."""
        pcm = np.ascontiguousarray(pcm)
        self._check(self._c.ps_process_raw(self._handle, pcm.ctypes.data, len(pcm), 0, 0))

    def end(self) -> None:
        """Ends the utterance. Raises RelayError."""
        self._check(self._c.ps_end_utt(self._handle))

    def cmn(self) -> bytes:
        """The cepstral mean with all that was heard so far; the one it began with counts as 500 frames of it."""
        return cast(bytes, self._c.ps_get_cmn(self._handle, 1))

    def adapt(self, cmn: bytes, frames: int) -> None:
        """Goes on from the mean of this utterance's first frames, little mixed with the mean it began with.

        Left alone the decoder would take ten seconds to move halfway from a typical microphone to the caller's own.
        """
        began = np.array(cmn.split(b","), dtype=np.float64)
        mixed = np.array(self.cmn().split(b","), dtype=np.float64)
        own = mixed + (mixed - began) * (_CMN_PRIOR_FRAMES / frames)
        mean = (own * frames + began * _ADAPT_PRIOR_FRAMES) / (frames + _ADAPT_PRIOR_FRAMES)
        self._check(self._c.ps_set_cmn(self._handle, ",".join(f"{x:.4g}" for x in mean).encode()))

    def words(self, *, posteriors: bool) -> list[Word]:
        """The best hypothesis now. Before `end` there are no posteriors, and every confidence is 0.5."""
        words = []
        first, last = ctypes.c_int(), ctypes.c_int()
        segment = self._c.ps_seg_iter(self._handle)
        while segment:
            text = self._c.ps_seg_word(segment).decode()
            if text[0] not in "<[+":  # silences and noises
                self._c.ps_seg_frames(segment, ctypes.byref(first), ctypes.byref(last))
                log_posterior = self._c.ps_seg_prob(segment, None, None, None)
                words.append(
                    Word(
                        text=text.partition("(")[0],  # `read(2)` is the second pronunciation of `read`
                        start_sample=first.value * DECODER_FRAME_SAMPLES,
                        end_sample=(last.value + 1) * DECODER_FRAME_SAMPLES,
                        confidence=min(self._c.logmath_exp(self._logmath, log_posterior), 1.0) if posteriors else 0.5,
                    )
                )
            segment = self._c.ps_seg_next(segment)  # frees the iterator at its end
        return words

    def free(self) -> None:
        """Frees it."""
        self._c.ps_free(self._handle)

    @staticmethod
    def _check(status: int) -> None:
        if status < 0:
            raise RelayError("pocketsphinx failed on this utterance; speak again")
