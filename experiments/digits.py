"""The quick start without a config file: a teacher, its space, rating, search and retraining on digits.

Hardware: two CPU cores, about a minute. Seeds: 0. Command: python experiments/digits.py
Result: a student folder and tables in runs/digits_script; five seeds of such runs are in digits_seeds.py.
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
    teacher = nas_kd.train_teacher("cifar_resnet20", data, run=run, epochs=epochs, lr=0.1)
    space = nas_kd.teacher_space(teacher, data)
    net = nas_kd.Supernet(space)  # the teacher's weights
    net = nas_kd.repair_units(net, teacher, data, run=run, batch_size=64)
    tables = nas_kd.rate_units(net, teacher, data, run=run)
    print(nas_kd.exact_front(tables, budget="macs"))
    trials = 20 if quick else 100
    result = nas_kd.search(net, teacher, data, tables, max_macs="8%", trials=trials, run=run)
    print(result.front()[["label", "macs", "params", "kl", "accuracy"]])
    student = nas_kd.retrain(
        result.best, teacher, data, space=space, supernet=net, run=run, epochs=epochs // 2, batch_size=64
    )
    folder = "runs/quick/digits_student" if quick else "runs/digits_student"
    nas_kd.save_student(student, folder)
    print(nas_kd.load_student(folder).info["metrics"])


if __name__ == "__main__":
    main()
