"Work for a process of its own (see test_benchmarks.py), in a file that imports nothing."


def growth(mebibytes):
    "Work whose process grows by so much."
    return lambda: len(bytearray(mebibytes << 20))
