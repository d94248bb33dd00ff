"""Opens policies in vLLM as a stranger would, one after the other: `vllm_worker.py REQUEST.json ANSWER.json`.

The request has `chats`, a list of {model, messages, chat_template_kwargs, max_tokens}, and `serve`, argument lists of
`vllm serve`. The answer has for each chat the prompt's token ids, those of the greedy response, the text, what ended
it, and the stop tokens and options that vLLM samples with; and what vLLM understands by the arguments.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

SIZES: dict[str, Any] = {"max_model_len": 256, "max_num_seqs": 4, "kv_cache_memory_bytes": 2**26}


def answered(request: dict[str, Any]) -> dict[str, Any]:
    """vLLM's answer to one request."""
    from vllm import LLM
    from vllm.distributed import parallel_state

    gc.freeze()
    llm = LLM(model=request["model"], dtype="float32", enforce_eager=True, use_tqdm_on_load=False, **SIZES)
    defaults = llm.get_default_sampling_params()
    options = {"temperature": defaults.temperature, "top_k": defaults.top_k}
    params = defaults.clone()
    params.temperature, params.max_tokens = 0.0, request["max_tokens"]
    kwargs = request["chat_template_kwargs"]
    found = llm.chat(request["messages"], params, use_tqdm=False, chat_template_kwargs=kwargs)[0]
    answer = found.outputs[0]
    config = llm.llm_engine.vllm_config.model_config.try_get_generation_config()
    llm.llm_engine.engine_core.shutdown()
    parallel_state.destroy_model_parallel()
    parallel_state.destroy_distributed_environment()
    return {
        "prompt": list(found.prompt_token_ids),
        "tokens": list(answer.token_ids),
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "eos_token_id": config.get("eos_token_id"),
        "defaults": options,
    }


def understood(arguments: list[str]) -> dict[str, Any]:
    """The options that the page and the cards use, as `vllm serve` reads them."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
    except ImportError:  # where older versions have it
        from vllm.entrypoints.openai.cli_args import make_arg_parser

    found = vars(make_arg_parser(FlexibleArgumentParser()).parse_args(arguments))
    names = ("model_tag", "dtype", "default_chat_template_kwargs", "override_generation_config")
    return {name: found[name] for name in names}


if __name__ == "__main__":
    gc.disable()  # to go through all that vLLM imports takes as long as to start an engine
    asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    answer = {
        "chats": [answered(request) for request in asked["chats"]],
        "serve": [understood(arguments) for arguments in asked["serve"]],
    }
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")
