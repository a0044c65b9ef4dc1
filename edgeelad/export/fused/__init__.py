"""Fused ONNX graphs: trace, edit, quantize and swap weights."""
