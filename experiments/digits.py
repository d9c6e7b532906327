"""The quick start without a config file: teacher, supernet, rating, search and retraining on digits.

Command: python experiments/digits.py; needs two minutes on two CPU cores and writes to runs/digits_script.
"""

import nas_kd

run = "runs/digits_script"
data = nas_kd.load_data("digits", rate=0.15, select=0.15)
space = nas_kd.load_space("digits")
teacher = nas_kd.train_teacher("cifar_resnet14", data, run=run, epochs=12, lr=0.1)
net = nas_kd.Supernet(space, num_classes=data.num_classes, in_chans=data.in_chans)
nas_kd.train_supernet(net, data, run=run, epochs=12, lr=0.05)
tables = nas_kd.rate_blockwise(net, teacher, data, run=run, epochs=5, lr=0.03)
print(nas_kd.exact_front(tables, budget="macs"))
result = nas_kd.search(net, teacher, data, tables, max_macs="50%", trials=100, run=run)
print(result.front()[["label", "macs", "params", "kl", "accuracy"]])
student = nas_kd.retrain(result.best, teacher, data, space=result.space, run=run, epochs=12, batch_size=64)
nas_kd.save_student(student, "runs/digits_student")
print(nas_kd.load_student("runs/digits_student").info["metrics"])
