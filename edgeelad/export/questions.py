"""Built-in questions for an export without a pool, or with a small one: no run asks or teaches them."""

from __future__ import annotations

from edgeelad.records import Question

# texts that the fp32 student writes to calibrate the quantized one, and to measure how closely it follows
NUM_TEXTS = 16
_TEXTS = (
    "Tom has 3 apples and buys 4 more. How many apples does Tom have?",
    "Why does ice float on water?",
    "A baker makes 24 rolls in the morning and 18 in the afternoon, and sells 30. How many rolls are left?",
    "Which is heavier, a kilogram of iron or a kilogram of feathers?",
    "A book costs 12 dollars and a pen costs 3 dollars. How much do 2 books and 4 pens cost together?",
    "Is a whale a fish? Answer yes or no.",
    "A tank holds 50 liters and loses 4 liters per hour. How many liters are in it after 6 hours?",
    "Who wrote the play Hamlet, and what is it about?",
    "Lena reads 15 pages a day. How many days does she need for a book of 180 pages?",
    "What is the capital of France, and which river runs through it?",
    "A shirt costs 40 dollars and is reduced by 25 percent. What does it cost now?",
    "Which of these is a mammal? (A) salmon (B) bat (C) lizard (D) eagle",
    "Three friends share 36 marbles equally, and one gives 5 away. How many does that one have now?",
    "Explain step by step how to find the area of a rectangle that is 7 meters long and 4 meters wide.",
    "A train leaves at 9:15 and arrives at 11:40. How many minutes does the journey take?",
    "What happens to a plant that gets no light?",
)
BUILT_IN = tuple(Question(f"built-in-{number}", text) for number, text in enumerate(_TEXTS))
