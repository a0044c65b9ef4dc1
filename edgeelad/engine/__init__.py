"""The student on ONNX Runtime: tokens (session, sampling, generate) and text (codec, tree, student, workers).

Needs numpy, onnxruntime, tokenizers and jinja2; never torch.
"""
