"""Layout of the tables by sequence slot: numbers and draws that a request's admission fixes."""

# Rows of the table of numbers, int32 [NUMBERS, slots].
SEQUENCE_INDEX, MAX_LENGTH, MIN_LENGTH, CAPACITY, ENCODE_TOKENS, FORCED_FIRST, PROMPT_LENGTH, NUMBERS = range(
    8
)
# Rows of the table of draws, int64 [DRAWS, slots].
SEED, DRAW_INDEX, DRAWS = range(3)
