"""A table of hotel stays whose columns depend on each other by rules."""

import csv
import random
from datetime import date, timedelta

random.seed(7)
GUESTS = {"single": 1, "double": 2, "suite": 4}

with open("stays.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(
        ["room", "guests", "arrival", "departure", "nights", "price", "tax", "total", "deposit"]
    )
    for _ in range(3_000):
        room = random.choice(list(GUESTS))
        arrival = date(2025, 1, 1) + timedelta(random.randrange(365))
        nights = random.choice([1, 1, 2, 2, 3, 7])
        price = round(nights * GUESTS[room] * random.uniform(60, 90), 2)
        tax = round(price * 0.07, 2)
        total = round(price + tax, 2)
        deposit = round(random.choice([50, 100, 200, 300]), 2)
        departure = arrival + timedelta(nights)
        row = [room, GUESTS[room], arrival, departure, nights, price, tax, total, deposit]
        table.writerow(row)
