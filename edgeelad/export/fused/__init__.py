"""Fused ONNX graphs: trace, edit, quantize, swap weights."""
