"""Text in and out: answers, numbers, arithmetic, explanations and prompts."""
