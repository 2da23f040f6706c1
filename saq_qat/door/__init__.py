"""What ``import saq_qat`` offers: the way of a recipe, and the parts for training loops of one's own."""
