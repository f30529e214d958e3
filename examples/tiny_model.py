"""Makes the tiny model that the demo and the tests serve: a real Llama, small enough for any laptop.

    python examples/tiny_model.py OUT_DIR

The weights are random but saved (not `--load-format dummy`), so that two engines that load the folder hold the same
bits, and scaled so that the prompt decides the answer: attention is sharp and the logits are far from flat. The
tokenizer is a byte-level BPE trained here. Nothing is downloaded, and the same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 2048
HIDDEN = 128
INTERMEDIATE = 256
HEAD_DIM = 32  # the smallest head that vLLM's CPU attention takes
MAX_POSITIONS = 8192
BOS, EOS, USER, ASSISTANT, SYSTEM = SPECIAL = ("<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")

# Raised when the same arguments begin to give other bytes, so that an older folder is made anew.
FORMAT = 1

# Gains over 1/sqrt(fan_in). Scores of about this spread make attention pick tokens instead of averaging 3,000 of them
# into noise; logits of this spread keep the best token well ahead of rounding.
SCORE_SPREAD = 3.0
LOGIT_SPREAD = 4.0

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

SENTENCES = """
A prompt goes in at one end and an answer comes out at the other.
The first half reads the whole prompt, and the second half writes one word after the other.
While layer seven is still being computed, layer six is already on its way.
Who waits for the whole stream waits too long; who waits for one event waits just enough.
Keep the keys, keep the values, and never read a byte before it was written.
Two pods on two nodes share no memory, so what one knows must travel to the other.
If nobody answers in time, do the work at home and count it.
A block that is free belongs to nobody, and a late write to it belongs to nobody either.
How many tokens are in this sentence, and how many layers will carry them?
Count: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9; then 10, 20, 30, 40, 50, 60, 70, 80, 90 and 100.
""".strip()


@dataclass(frozen=True)
class Shape:
    """What makes one tiny model differ from another; written beside it, so that a second call can skip the work."""

    layers: int
    heads: int
    kv_heads: int
    seed: int
    kind: str
    format: int = FORMAT


class Dice:
    """Uniform numbers from raw 64-bit draws: plain arithmetic, so equal on every machine and numpy version."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def weights(self, *shape: int, std: float) -> NDArray[np.float32]:
        raw = self._bits.random_raw(math.prod(shape))
        unit = (raw >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
        return (unit * np.float32(std * math.sqrt(3))).reshape(shape)

    def below(self, bound: int) -> int:
        return int(self._bits.random_raw()) % bound


def training_text(seed: int) -> list[str]:
    """The sentences above and words made of syllables: enough different pairs for a full vocabulary."""
    dice = Dice(seed)
    onsets = ["b", "br", "d", "f", "gl", "h", "k", "kr", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v", "w", "z"]
    rhymes = ["a", "an", "ar", "e", "el", "en", "er", "i", "in", "o", "on", "or", "u", "un", "us"]
    syllables = [onset + rhyme for onset in onsets for rhyme in rhymes]

    def word() -> str:
        return "".join(syllables[dice.below(len(syllables))] for _ in range(1 + dice.below(3)))

    lexicon = [word() for _ in range(1500)]
    invented = [" ".join(lexicon[dice.below(1 + dice.below(len(lexicon)))] for _ in range(12)) for _ in range(1500)]
    return SENTENCES.splitlines() * 20 + invented


def train_tokenizer(seed: int) -> Tokenizer:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(seed), trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise RuntimeError(f"the training text gives {tokenizer.get_vocab_size()} tokens, not {VOCAB_SIZE}")
    return tokenizer


def make_weights(shape: Shape) -> dict[str, NDArray[np.float32]]:
    """Every matrix keeps unit variance, except queries and keys (sharp attention) and the head (peaked logits)."""
    dice = Dice(shape.seed)
    ones = np.ones(HIDDEN, dtype=np.float32)
    wide, narrow = 1 / math.sqrt(HIDDEN), 1 / math.sqrt(INTERMEDIATE)
    sharp = wide * math.sqrt(SCORE_SPREAD)
    q_size, kv_size = shape.heads * HEAD_DIM, shape.kv_heads * HEAD_DIM
    tensors = {
        "model.embed_tokens.weight": dice.weights(VOCAB_SIZE, HIDDEN, std=0.5),
        "model.norm.weight": ones.copy(),
        "lm_head.weight": dice.weights(VOCAB_SIZE, HIDDEN, std=LOGIT_SPREAD * wide),
    }
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        tensors |= {
            at + "input_layernorm.weight": ones.copy(),
            at + "post_attention_layernorm.weight": ones.copy(),
            at + "self_attn.q_proj.weight": dice.weights(q_size, HIDDEN, std=sharp),
            at + "self_attn.k_proj.weight": dice.weights(kv_size, HIDDEN, std=sharp),
            at + "self_attn.v_proj.weight": dice.weights(kv_size, HIDDEN, std=wide),
            at + "self_attn.o_proj.weight": dice.weights(HIDDEN, q_size, std=1 / math.sqrt(q_size)),
            at + "mlp.gate_proj.weight": dice.weights(INTERMEDIATE, HIDDEN, std=wide),
            at + "mlp.up_proj.weight": dice.weights(INTERMEDIATE, HIDDEN, std=wide),
            at + "mlp.down_proj.weight": dice.weights(HIDDEN, INTERMEDIATE, std=narrow),
        }
    return tensors


def model_config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": SPECIAL.index(BOS),
        "eos_token_id": SPECIAL.index(EOS),
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": MAX_POSITIONS,
        "mlp_bias": False,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": VOCAB_SIZE,
    }


def tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": EOS,
        "additional_special_tokens": [USER, ASSISTANT, SYSTEM],
        "model_max_length": MAX_POSITIONS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def make_tiny_model(
    out: Path, *, layers: int = 8, heads: int = 8, kv_heads: int = 4, seed: int = 0, kind: str = "llama"
) -> None:
    """Write the model to `out`; nothing to do when it is already there with the same arguments."""
    if kind != "llama":
        raise ValueError(f"unknown kind {kind!r}: only 'llama' is there")
    if heads % kv_heads:
        raise ValueError(f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})")
    shape = Shape(layers, heads, kv_heads, seed, kind)
    stamp, content = out / "layercast-tiny.json", json.dumps(asdict(shape), indent=2) + "\n"
    if stamp.is_file() and stamp.read_text() == content:
        return
    out.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    train_tokenizer(seed).save(str(out / "tokenizer.json"))
    # vLLM takes the key "format" from the file's metadata for the framework's name.
    save_file(make_weights(shape), out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # written as 0600, and engines don't run as the maker
    generation = {"bos_token_id": SPECIAL.index(BOS), "eos_token_id": SPECIAL.index(EOS), "do_sample": False}
    documents = {
        "config.json": model_config(shape),
        "generation_config.json": generation,
        "tokenizer_config.json": tokenizer_config(),
    }
    for name, document in documents.items():
        (out / name).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    stamp.write_text(content)  # last: a folder without it is an unfinished one


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the tiny Llama that the demo and the tests serve.")
    parser.add_argument("out", type=Path, help="folder to write (made when missing)")
    for name, value in (("layers", 8), ("heads", 8), ("kv-heads", 4), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = vars(parser.parse_args())
    make_tiny_model(**options)
    print(options["out"])


if __name__ == "__main__":
    main()
