"""edgeelad: explanation-guided active distillation of reasoning into small ONNX students (arXiv 2402.13098)."""

__version__ = "0.1.0"
