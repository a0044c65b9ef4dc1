"""The student on ONNX Runtime: tokens below (session, sampling, generate), text above (codec, tree, student, workers).

Needs numpy, onnxruntime, tokenizers and jinja2; never torch.
"""
