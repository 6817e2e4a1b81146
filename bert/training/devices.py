"""TODO"""

# Losses are read this many batches late, so that the devices always have work waiting.
IN_FLIGHT = 2
# Losses are read this many steps late, so that the devices always have work waiting.
STEPS_IN_FLIGHT = 2
