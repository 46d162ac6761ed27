"""Tokenizers over the words of the captions, and random text encoders that stay as they were drawn."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from photographs import CLIP_TOKENS, T5_TOKENS, WORDS
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)


def train_text(work: Path) -> None:
    """Write tokenizers and text encoders into the folder of parts."""
    clip_tokenizer, t5_tokenizer = clip_words(), t5_words()
    torch.manual_seed(1)
    clip_config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CLIP_TOKENS,
        projection_dim=64,
        bos_token_id=clip_tokenizer.bos_token_id,
        eos_token_id=clip_tokenizer.eos_token_id,
        pad_token_id=clip_tokenizer.pad_token_id,
    )
    t5_config = T5Config(
        vocab_size=len(t5_tokenizer),
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
    )
    for name, part in {
        "tokenizer": clip_tokenizer,
        "t5_tokenizer": t5_tokenizer,
        "clip_1": CLIPTextModelWithProjection(clip_config),
        "clip_2": CLIPTextModelWithProjection(clip_config),
        "clip_flux": CLIPTextModel(clip_config),
        "t5": T5EncoderModel(t5_config),
    }.items():
        part.save_pretrained(work / name)


def clip_words() -> CLIPTokenizer:
    """Byte pairs of the captions; every letter is known, too."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator([w.lower() for w in WORDS], trainer)
    vocab = bpe.get_vocab()
    for letter in alphabet:
        vocab.setdefault(f"{letter}</w>", len(vocab))
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CLIP_TOKENS)


def t5_words() -> T5TokenizerFast:
    """Pieces of the captions, by their likelihood; every letter is known, too."""
    pieces = Tokenizer(models.Unigram())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    letters = sorted({chr(c) for c in range(33, 127)} | {"▁"})
    trainer = trainers.UnigramTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=letters,
        show_progress=False,
    )
    pieces.train_from_iterator(WORDS, trainer)
    scores = [tuple(piece) for piece in json.loads(pieces.to_str())["model"]["vocab"]]
    return T5TokenizerFast(vocab=scores, extra_ids=0, model_max_length=T5_TOKENS)
