"""The quick start without a config file: teacher, supernet, rating, search and retraining on digits.

Command: python experiments/digits.py; needs two minutes on two CPU cores and writes to runs/digits_script.
"""

import argparse

import nas_kd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one sixth of everything, to see that it runs")
    quick = parser.parse_args().quick
    run = "runs/quick/digits" if quick else "runs/digits_script"
    epochs = 2 if quick else 12
    data = nas_kd.load_data("digits", rate=0.15, select=0.15, subset=400 if quick else None)
    space = nas_kd.load_space("digits")
    teacher = nas_kd.train_teacher("cifar_resnet14", data, run=run, epochs=epochs, lr=0.1)
    net = nas_kd.Supernet(space, num_classes=data.num_classes, in_chans=data.in_chans)
    nas_kd.train_supernet(net, data, run=run, epochs=epochs, lr=0.05)
    tables = nas_kd.rate_blockwise(net, teacher, data, run=run, epochs=2 if quick else 5, lr=0.03)
    print(nas_kd.exact_front(tables, budget="macs"))
    trials = 20 if quick else 100
    result = nas_kd.search(net, teacher, data, tables, max_macs="50%", trials=trials, run=run)
    print(result.front()[["label", "macs", "params", "kl", "accuracy"]])
    student = nas_kd.retrain(result.best, teacher, data, space=result.space, run=run, epochs=epochs, batch_size=64)
    folder = "runs/quick/digits_student" if quick else "runs/digits_student"
    nas_kd.save_student(student, folder)
    print(nas_kd.load_student(folder).info["metrics"])


if __name__ == "__main__":
    main()
