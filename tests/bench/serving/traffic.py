"""What clients ask for: mixed steps and samplers, all guided, drawn from a seed; and when: Poisson arrivals. The rows that a request costs are
known beforehand, so that a load is a share of a capacity in rows a second, whatever requests were drawn."""
import random

STEPS = (5, 50)
GUIDANCE = 2.0
# How many evaluations so many steps take; twice as many rows where guidance has two of them.
SAMPLERS = {"dpmpp_2m": lambda steps: steps, "ddim": lambda steps: steps, "euler": lambda steps: steps, "euler_ancestral": lambda steps: steps,
            "unipc": lambda steps: steps, "ddpm": lambda steps: steps, "dpmpp_2m_sde": lambda steps: steps, "heun": lambda steps: 2 * steps - 1}


def rows_of(request):
    return 2 * SAMPLERS[request["sampler"]](request["steps"])


def drawn(seed, count, classes):
    """So many requests."""
    draws = random.Random(seed)
    return [{"sampler": draws.choice(sorted(SAMPLERS)), "steps": draws.randint(*STEPS), "guidance_scale": GUIDANCE,
             "class_label": draws.randrange(classes), "seed": draws.randrange(2 ** 32)} for _ in range(count)]


def arrivals(seed, count):
    """Times of so many arrivals of a Poisson process, the mean gap 1: the same at every load but for the scale."""
    draws, now, times = random.Random(seed + 1), 0.0, []
    for _ in range(count):
        now += draws.expovariate(1.0)
        times.append(now)
    return times
