"""edgeelad: explanation-guided active distillation of reasoning into small ONNX students (arXiv 2402.13098)."""

import os

# read when onnxruntime is imported: without it, recent versions keep a device id and send usage events
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
