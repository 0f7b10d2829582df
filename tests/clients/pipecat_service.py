"""A dialogue through pipecat's `OpenAIRealtimeLLMService` in a pipeline; it greets, truncates and runs tools by itself.

python pipecat_service.py http://127.0.0.1:8000 KEY question.pcm interruption.pcm     (24 kHz, 16 bits, mono)
"""

from __future__ import annotations

import asyncio
import json
import sys
from array import array
from pathlib import Path

from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMRunFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime.events import (
    AudioConfiguration,
    AudioInput,
    InputAudioTranscription,
    SessionProperties,
)
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

RATE_HZ = 24_000
BYTES_PER_MS = 48
CHUNK_BYTES = 20 * BYTES_PER_MS
INTERRUPT_AFTER_MS = 4_000


def report(kind: str, **fields: object) -> None:
    print(json.dumps({"kind": kind, **fields}), flush=True)


async def look_up(call: FunctionCallParams) -> None:
    report("tool", name=call.function_name, **call.arguments)
    await call.result_callback("sunny")


class Caller(BaseObserver):
    """Listens to the service, and speaks: first after the greeting, then into the reply."""

    def __init__(self, service: OpenAIRealtimeLLMService, question: bytes, interruption: bytes) -> None:
        super().__init__()
        self.service = service
        self.to_say = [question, interruption]
        self.audio = bytearray()
        self.text = ""
        self.worker: PipelineWorker

    async def on_push_frame(self, data: FramePushed) -> None:
        frame = data.frame
        if data.source is not self.service:
            return
        if isinstance(frame, ErrorFrame):
            report("error", message=frame.error)
            await self.worker.queue_frame(EndFrame())
        elif isinstance(frame, TranscriptionFrame):
            report("heard", text=frame.text)
        elif isinstance(frame, TTSTextFrame):
            self.text += frame.text
        elif isinstance(frame, TTSAudioRawFrame):
            self.audio += frame.audio
            if len(self.to_say) == 1 and len(self.audio) > INTERRUPT_AFTER_MS * BYTES_PER_MS:
                await self.speak()
        elif isinstance(frame, InterruptionFrame):
            self.finish(interrupted=True)
        elif isinstance(frame, TTSStoppedFrame) and self.audio:
            self.finish(interrupted=False)
            if self.to_say:
                await self.speak()
            else:
                await self.look_back()
                await self.worker.queue_frame(EndFrame())

    def finish(self, *, interrupted: bool) -> None:
        if self.audio:
            peak = max(map(abs, array("h", bytes(self.audio))))
            ms = len(self.audio) // BYTES_PER_MS
            report("reply", text=self.text, ms=ms, peak=peak, interrupted=interrupted)
        self.audio.clear()
        self.text = ""

    async def look_back(self) -> None:
        """Asks for an item that is not there. The service ends at errors, but not at the one that says so."""
        try:
            await self.service.retrieve_conversation_item("item_unknown")
        except Exception as error:
            report("refused", message=str(error))

    async def speak(self) -> None:
        audio = self.to_say.pop(0)
        for at in range(0, len(audio), CHUNK_BYTES):
            frame = InputAudioRawFrame(audio[at : at + CHUNK_BYTES], RATE_HZ, 1)
            await self.worker.queue_frame(frame)


async def main(url: str, key: str, question: str, interruption: str) -> None:
    tool = FunctionSchema("look_up", "Looks the weather of a city up.", {"city": {"type": "string"}}, ["city"])
    settings = SessionProperties(
        audio=AudioConfiguration(input=AudioInput(transcription=InputAudioTranscription())), tools=[tool]
    )
    service = OpenAIRealtimeLLMService(
        api_key=key,
        base_url=url.replace("http", "ws", 1) + "/v1/realtime",
        settings=OpenAIRealtimeLLMService.Settings(
            model="relay", system_instruction="Be brief.", session_properties=settings
        ),
    )
    service.register_function("look_up", look_up)
    aggregators = LLMContextAggregatorPair(LLMContext())
    caller = Caller(service, Path(question).read_bytes(), Path(interruption).read_bytes())
    params = PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=RATE_HZ)
    worker = PipelineWorker(
        Pipeline([aggregators.user(), service, aggregators.assistant()]), params=params, observers=[caller]
    )
    caller.worker = worker
    await worker.queue_frame(LLMRunFrame())
    runner = WorkerRunner()
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
