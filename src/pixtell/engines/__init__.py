"""The decoding protocol of models/base.py, and the encoders', on other runtimes than torch.

    onnx.py          graphs on disk -> a CaptionDecoder and an Encoder
    onnx_export.py   torch modules -> graphs on disk

They know torch and nothing of ours but the ground: no images, no tokenizers, no families.
"""
