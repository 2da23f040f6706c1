"""Run a bundle with numpy and one engine; nothing of training is needed."""
