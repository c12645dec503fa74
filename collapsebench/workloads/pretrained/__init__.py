"""Pretrained language models, fine-tuned recursively."""
