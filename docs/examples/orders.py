"""The tables of the tutorials: orders of a shop that does not exist; the new ones have ten errors.

    python docs/examples/orders.py      # writes orders.csv (4,000 rows) and new.csv (600 rows) here

`new.csv` has ten wrong cells of the kinds that people and programs make. `errors.csv` says where.
"""

import csv
import random
from datetime import datetime, timedelta

PRODUCTS = {  # product: usual price, colours
    "mug": (9.0, ["white", "blue", "red"]),
    "lamp": (48.0, ["white", "black"]),
    "chair": (129.0, ["oak", "black"]),
    "desk": (340.0, ["oak", "white"]),
}
COUNTRIES = {"DE": "EUR", "FR": "EUR", "GB": "GBP", "CH": "CHF"}
EXCHANGE = {"EUR": 1.0, "GBP": 0.86, "CHF": 0.95}

Order = dict[str, object]


def order(number: int, dice: random.Random) -> Order:
    """One order in which all cells fit: the currency to the country, the colour to the product."""
    product = dice.choices(list(PRODUCTS), [50, 25, 15, 10])[0]
    country = dice.choices(list(COUNTRIES), [45, 25, 20, 10])[0]
    price, colours = PRODUCTS[product]
    currency = COUNTRIES[country]
    day = datetime(2026, 1, 1) + timedelta(days=dice.randrange(200))
    ordered = day + timedelta(minutes=round(dice.triangular(8 * 60, 23 * 60, 20 * 60)))
    shipped = ordered + timedelta(minutes=round(dice.gammavariate(4, 600)))
    coupon = dice.choice(["SPRING", "FRIEND"]) if dice.random() < 0.15 else ""
    paid = price * EXCHANGE[currency] * dice.uniform(0.97, 1.03) * (0.9 if coupon else 1.0)
    quantity = dice.choices([1, 2, 3, 4, 6], [50, 22, 8, 12, 8])[0] if product == "mug" else 1
    return {
        "order": f"N{number:05}",
        "ordered": ordered.isoformat(sep=" ", timespec="minutes"),
        "shipped": shipped.isoformat(sep=" ", timespec="minutes"),
        "country": country,
        "currency": currency,
        "product": product,
        "colour": dice.choice(colours),
        "quantity": quantity,
        "paid": f"{paid * quantity:.2f}",
        "coupon": coupon,
        "returned": "yes" if dice.random() < (0.12 if product == "chair" else 0.05) else "no",
    }


def spoil(orders: list[Order]) -> list[tuple[int, str]]:
    """Make ten cells wrong: the row number and the column of each."""
    wrong: list[tuple[int, str, object]] = [
        (23, "paid", f"{100 * float(str(orders[23]['paid'])):.2f}"),  # the decimal point is lost
        (71, "currency", "GBP" if orders[71]["country"] != "GB" else "EUR"),
        (118, "shipped", str(orders[118]["shipped"]).replace("2026", "2027")),
        (190, "quantity", 40),
        (245, "colour", "oak" if orders[245]["product"] in ("mug", "lamp") else "red"),
        (301, "ordered", str(orders[301]["ordered"])[:11] + "03:17"),  # nobody orders at 3 a.m.
        (366, "paid", "0.00"),
        (420, "country", "CH" if orders[420]["currency"] != "CHF" else "FR"),
        (488, "product", "desk" if orders[488]["product"] == "mug" else "mug"),
        (555, "coupon", "SPRNG"),
    ]
    for row, column, value in wrong:
        orders[row][column] = value
    return [(row, column) for row, column, _ in wrong]


def write(name: str, rows: list[Order]) -> None:
    with open(name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    dice = random.Random(5)
    orders = [order(number, dice) for number in range(4_600)]
    new = orders[4_000:]
    errors = spoil(new)
    write("orders.csv", orders[:4_000])
    write("new.csv", new)
    write("errors.csv", [{"row": row, "column": column} for row, column in errors])
