import csv

from cqt2img.watch import look_on


def entry(n, **changes):
    return {"epoch": n, "loss": 0.5 / n, "valid_accuracy": None, "valid_loss": None, "seconds": 1.0, **changes}


def test_the_history_grows_in_a_table(tmp_path):
    def rows():
        with (tmp_path / "ck/history.csv").open(newline="", encoding="utf-8") as file:
            return [(row["epoch"], row["loss"]) for row in csv.DictReader(file)]

    with look_on(False, tmp_path / "ck") as watch:
        watch.begin(3, 10, 0)
        for n in (1, 2):
            watch.epoch(entry(n))
            assert len(rows()) == n
    with look_on(False, tmp_path / "ck") as watch:  # resumed in the second epoch, which is done again
        watch.begin(3, 10, 15)
        watch.epoch(entry(2, loss=0.1))
        watch.epoch(entry(3, loss=0.05))
    assert rows() == [("1", "0.5"), ("2", "0.1"), ("3", "0.05")]
    with look_on(False, tmp_path / "ck") as watch:  # a new training begins a new table
        watch.epoch(entry(1, loss=9.0))
    assert rows() == [("1", "9.0")]
