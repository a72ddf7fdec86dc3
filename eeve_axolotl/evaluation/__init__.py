"""What a model makes of held-out text: scores, and one model inspected from all sides. Knows nothing of Axolotl."""
