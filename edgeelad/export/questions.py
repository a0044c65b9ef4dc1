"""Built-in questions for an export without a pool, or with a small one: no run asks or teaches them."""

from __future__ import annotations

from edgeelad.records import Question

# texts that the fp32 student writes to measure how closely the quantized one follows, and to calibrate it
NUM_MEASURED, NUM_CALIBRATION = 8, 32
NUM_TEXTS = NUM_MEASURED + NUM_CALIBRATION
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
    "A farmer has 12 cows and twice as many sheep. How many animals are there?",
    "Which planet is closest to the sun, and why is it not the hottest?",
    "Sam saves 15 dollars per week and spends 20 dollars once. How much does Sam have after 8 weeks?",
    "Is the number 51 prime? Answer yes or no.",
    "What is the difference between a virus and a bacterium?",
    "A recipe for 4 people needs 300 grams of rice. How many grams are needed for 10 people?",
    "Which word does not belong: apple, pear, hammer, plum?",
    "A car drives 150 kilometers in 2 hours. How far does it drive in 5 hours at the same speed?",
    "If all roses are flowers and some flowers fade quickly, do all roses fade quickly?",
    "Ben is 4 years older than Mia, who is 9. How old will Ben be in 3 years?",
    "Why are there seasons on Earth?",
    "A class of 28 children forms groups of 4. Each group needs 3 sheets of paper. How many sheets are needed?",
    "Name three renewable sources of energy and one disadvantage of each.",
    "A number is doubled and then 7 is added. The result is 31. What is the number?",
    "Which gas do plants take in? (A) oxygen (B) carbon dioxide (C) nitrogen (D) helium",
    "Anna walks north for 3 kilometers and then east for 4. How far is she from where she began?",
    "What did people use before paper was invented?",
    "A ticket costs 8 dollars for adults and half of that for children. What do 2 adults and 3 children pay?",
    "Could a person who died in 1750 have used a telephone? Answer yes or no.",
    "A pool is filled at 12 liters per minute and leaks 2 liters per minute. When does it hold 600 liters?",
    "Summarize in two sentences why people need sleep.",
    "There are 5 red, 3 blue and 2 green balls in a bag. What is the probability of drawing a blue one?",
    "Which is larger, three quarters or five eighths?",
    "Write the steps to make a cup of tea.",
)
BUILT_IN = tuple(Question(f"built-in-{number}", text) for number, text in enumerate(_TEXTS))
