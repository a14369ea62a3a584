"""What the scripts beside it share: writing tensors as a safetensors file."""
import json
import os
import struct


def save(name, tensors, texts):
    """The header's length, the header as JSON, the numbers. Tensors: NumPy's or PyTorch's."""
    header, data = {"__metadata__": texts}, b""
    for key, tensor in tensors.items():
        code = "i" if "int32" in str(tensor.dtype) else "f"
        flat = tensor.flatten().tolist()
        body = struct.pack("<%d%s" % (len(flat), code), *flat)
        header[key] = {"dtype": "I32" if code == "i" else "F32", "shape": list(tensor.shape),
                       "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
