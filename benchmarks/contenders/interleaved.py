"""Several contenders in one process, in turns: what the machine does to one of them it does to the others, too."""

from __future__ import annotations

import gc
import importlib
import time

from benchmarks.contenders.kit import Order, Returned, main


async def work(order: Order, returned: Returned) -> None:
    for repetition in range(order.repetitions + 1):
        for name in order.contenders:
            one = Returned()
            gc.collect()
            began_s = time.process_time()
            await importlib.import_module(f"benchmarks.contenders.{name}").work(order, one)
            cost = {"cpu_s": time.process_time() - began_s, "returned_s": one.returned_s, "errors": one.errors}
            if repetition:  # the first is for the caches
                returned.details.setdefault(name, []).append(cost)


if __name__ == "__main__":
    main(work)
