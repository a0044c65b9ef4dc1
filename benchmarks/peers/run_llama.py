"""llama.cpp through llama-cpp-python's C interface: one prompt at a time, greedily, its own sampler in its own code.

Runs in an environment of its own, which has llama-cpp-python.
"""

from typing import Any

import llama_cpp
from protocol import Run, Work, serve


def load(work: Work) -> tuple[Run, dict[str, Any]]:
    """Load a GGUF file with as many threads as are given."""
    chosen = work.settings
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(chosen["folder"].encode(), llama_cpp.llama_model_default_params())
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = max(map(len, work.prompts)) + work.num_new
    settings.n_batch = settings.n_ctx
    settings.n_threads = settings.n_threads_batch = chosen["threads"]
    context = llama_cpp.llama_init_from_model(model, settings)
    sampler = llama_cpp.llama_sampler_init_greedy()

    def run(questions: list[int], every: int, offset: int) -> int:
        total = 0
        for question in questions:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
            fresh = work.prompts[question]
            for _ in range(work.num_new):
                ids = (llama_cpp.llama_token * len(fresh))(*fresh)
                failure = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(fresh)))
                assert not failure, failure
                fresh = [llama_cpp.llama_sampler_sample(sampler, context, -1)]
                total += 1
        return total

    versions = {"llama-cpp-python": llama_cpp.__version__}
    about = {key: chosen[key] for key in ("precision", "threads")}
    return run, {"versions": versions, "settings": about | {"system": llama_cpp.llama_print_system_info().decode()}}


if __name__ == "__main__":
    serve(load)
