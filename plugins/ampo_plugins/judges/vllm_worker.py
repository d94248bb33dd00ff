"""The process of the judge `vllm`: one engine, asked over standard input, until that ends."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from array import array
from collections.abc import Sequence
from queue import SimpleQueue
from typing import IO, Any

from ampo_registry import BuildContext, ConfigError, RunError

from ampo_plugins.judges.frames import receive, send

Message = tuple[dict[str, Any], list[bytes]]


class Engine:
    """vLLM with the `options` of vllm_process.EngineOptions. Raises ConfigError for what a person must change."""

    def __init__(self, options: dict[str, Any]) -> None:
        from ampo_plugins.rollouts.vllm.engine import engine_arguments, unfit_heads
        from ampo_plugins.rollouts.vllm.process import import_vllm

        path, trusted = options.pop("path"), options.pop("trust_remote_code")
        context = BuildContext(model_path=path, trust_remote_code=trusted, seed=options.pop("seed"))
        self._vllm = import_vllm()
        if (unfit := unfit_heads(path, trust_remote_code=trusted)) is not None:
            raise ConfigError(f"{unfit}. Use the judge transformers")
        arguments = engine_arguments(options, context)
        try:
            # Sequences are read once: a cache of them would only take time.
            self._llm = self._vllm.LLM(**arguments, enable_prefix_caching=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot load the model {path}: {error}") from error
        self._sleeps, self._asleep = bool(arguments["enable_sleep_mode"]), False
        self._temperature, self._warmed = 1.0, 0
        self._llm.apply_model(self._warm)
        self.sleep()

    def _warm(self, model: Any) -> None:
        """Let `model` divide its logits by the temperature: vLLM gives a prompt's log-probs at 1 only."""
        plain = model.compute_logits

        def compute_logits(*arguments: Any, **options: Any) -> Any:
            logits = plain(*arguments, **options)
            if logits is None or self._temperature == 1.0:
                return logits
            self._warmed += 1
            return logits.float() / self._temperature

        model.compute_logits = compute_logits

    def logprobs(self, sequences: Sequence[array[int]], starts: Sequence[int], temperature: float) -> list[bytes]:
        """For each of `sequences` the log-probs of its tokens from its start on, as float32."""
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False
        self._temperature, self._warmed = temperature, 0
        flat = {"flat_logprobs": True} if hasattr(self._vllm.SamplingParams, "flat_logprobs") else {}
        params = self._vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=1.0, detokenize=False, **flat)
        prompts = [{"prompt_token_ids": list(sequence)} for sequence in sequences]
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        if temperature != 1.0 and not self._warmed:
            raise RunError(f"this vLLM cannot be made to use temperature {temperature:g}; use the judge transformers")
        return [
            _logprobs(output.prompt_logprobs, sequence, start).tobytes()
            for output, sequence, start in zip(outputs, sequences, starts, strict=True)
        ]

    def sleep(self) -> None:
        """Weights to the host's memory, the cache away; a CPU has no other place for them."""
        if self._sleeps and not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = True


def _logprobs(found: Any, sequence: array[int], start: int) -> array[float]:
    """Log-probs of `sequence` from `start` on out of either of vLLM's containers."""
    places = range(start, len(sequence))
    if hasattr(found, "start_indices"):
        at = [found.start_indices[i] for i in places]
        if [found.token_ids[i] for i in at] != list(sequence[start:]):
            raise RunError("vLLM gave the log-probs of other tokens")
        return array("f", [found.logprobs[i] for i in at])
    return array("f", [found[i][sequence[i]].logprob for i in places])


def _read(stream: IO[bytes], messages: SimpleQueue[Message]) -> None:
    """Queue what comes. At the end of it this process ends, in the midst of whatever it does: nobody waits for it."""
    while (message := receive(stream)) is not None:
        messages.put(message)
    os._exit(0)


def _ids(data: bytes) -> array[int]:
    ids = array("i")
    ids.frombytes(data)
    return ids


def main() -> None:
    """Answer what stands on standard input, until something fails. What libraries print goes where errors go."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    messages: SimpleQueue[Message] = SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, messages), daemon=True).start()
    try:
        engine = Engine(messages.get()[0])
        send(answers, {"ready": True})
        while True:
            message, data = messages.get()
            if "sleep" in message:
                engine.sleep()
                send(answers, {"asleep": True})
                continue
            found = engine.logprobs([_ids(part) for part in data], message["starts"], message["temperature"])
            send(answers, {}, found)
    except ConfigError as error:
        send(answers, {"refused": str(error).removeprefix("rollout vllm: ")})
    except Exception as error:
        traceback.print_exc()
        send(answers, {"failed": f"{type(error).__name__}: {error}"})
    sys.stderr.flush()
    os._exit(1)  # the reading thread would be in the way of an orderly end


if __name__ == "__main__":
    main()
