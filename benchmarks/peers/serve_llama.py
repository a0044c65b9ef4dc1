"""llama.cpp's own server, with as many slots as clients: python serve_llama.py MODEL.gguf SLOTS CONTEXT THREADS.

Prints its URL, then serves until stdin ends. Runs in an environment of its own, which has xllamacpp.
"""

import sys

import xllamacpp


def main() -> None:
    """Start the server; requests that repeat a prompt find its beginning in a slot, as by default."""
    path, slots, context, threads = sys.argv[1], *map(int, sys.argv[2:])
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel, params.n_ctx = slots, slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print(f"{server.listening_address}/v1", flush=True)
    print(xllamacpp.get_system_info(), file=sys.stderr, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
