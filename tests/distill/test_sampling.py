"""Batches drawn otherwise: classes, pairs, views; functions of seed and epoch alone."""

from __future__ import annotations

import pytest
import torch

from nas_kd.data import Data, load_data
from nas_kd.distill.sampling import ClassBalanced, ClassPairs, CleanBeside, TwoViews, WithUnlabelled, super_classes
from nas_kd.errors import SettingError


def make(counts: list[int], **settings: object) -> Data:
    generator = torch.Generator().manual_seed(0)
    y = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    x = torch.randint(0, 255, (len(y), 1, 6, 6), generator=generator).to(torch.uint8)
    return load_data(
        (x, y), **{"rate": 0.1, "select": 0.1, "test": (x, y), "duplicates": "keep", "views": 3, "pad": 1} | settings
    )


DATA = make([40, 30, 30, 20, 60])


def whole(sampled, epoch=0, seed=0, batch_size=12):
    return list(sampled.batches(batch_size, epoch=epoch, seed=seed))


@pytest.mark.parametrize("kind", [ClassBalanced, ClassPairs, TwoViews, CleanBeside])
def test_same_seed_and_epoch_same_batches(kind):
    sampled = kind(DATA.train)
    one, same, later, other = (whole(sampled, *at) for at in ((0, 0), (0, 0), (1, 0), (0, 1)))
    assert len(sampled) == len(DATA.train) and len(one) == sampled.steps(12) == DATA.train.steps(12)
    assert all(torch.equal(a.x, b.x) and torch.equal(a.index, b.index) for a, b in zip(one, same, strict=True))
    for changed in (later, other):
        assert not all(torch.equal(a.index, b.index) for a, b in zip(one, changed, strict=True))
    for batch in one:
        assert torch.equal(batch.y, DATA.train.labels[batch.index])
        assert batch.to("cpu").x.shape == (12, 1, 6, 6)
    # several processes share a batch
    parts = [next(sampled.batches(12, epoch=0, seed=0, rank=r, world=2)) for r in (0, 1)]
    assert torch.equal(torch.stack([p.index for p in parts], 1).flatten(), one[0].index)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_balanced_batches_hold_equally_many_of_few_classes(classes):
    for batch in whole(ClassBalanced(DATA.train, classes)):
        counts = batch.y.bincount()
        assert (counts > 0).sum() == classes and set(counts[counts > 0].tolist()) == {12 // classes}
        assert len(set(batch.index.tolist())) == 12


def test_balanced_batches_cover_all_classes_alike():
    seen = torch.zeros(5)
    sampled = ClassBalanced(DATA.train, 2)
    for epoch in range(30):
        for batch in whole(sampled, epoch):
            seen += batch.y.bincount(minlength=5) > 0
    assert (seen / seen.sum() - 0.2).abs().max() < 0.04  # though class 4 has three times the images of class 3


def test_super_classes_come_together():
    groups = [0, 0, 1, 1, 1]
    for batch in whole(ClassBalanced(DATA.train, 2, groups)):
        assert len({groups[c] for c in batch.y.tolist()}) == 1
    assert {frozenset(batch.y.tolist()) for batch in whole(ClassBalanced(DATA.train, 2, groups))} >= {frozenset({0, 1})}
    with pytest.raises(SettingError, match="groups"):
        ClassBalanced(DATA.train, 2, [0, 1])


def test_super_classes_are_the_near_ones():
    centre = torch.tensor([[0.0, 0], [9, 9], [0, 1], [9, 8], [-9, 9]])
    labels = torch.arange(5).repeat(20)
    features = centre[labels] + 0.1 * torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    found = super_classes(features, labels, 3)
    assert found[0] == found[2] != found[1] == found[3] != found[4] != found[0]
    assert len(set(super_classes(features, labels, 5))) == 5 and set(super_classes(features, labels, 1)) == {0}
    with pytest.raises(SettingError, match="1 to 5"):
        super_classes(features, labels, 6)


def test_a_small_class_fills_its_share_by_repeating():
    data = make([40, 4])
    for batch in whole(ClassBalanced(data.train, 2)):
        assert batch.y.bincount().tolist() == [6, 6]
    with pytest.raises(SettingError, match="batch_size"):
        whole(ClassBalanced(DATA.train, 4), batch_size=3)
    with pytest.raises(SettingError, match="2 or more classes"):
        ClassBalanced(DATA.train, 1)


def test_pairs_share_their_class_and_are_never_the_same_image():
    sampled = ClassPairs(DATA.train)
    index = torch.arange(len(DATA.train)).repeat(50)
    partners = sampled.partners(index, torch.Generator().manual_seed(0))
    labels = DATA.train.labels
    assert torch.equal(labels[index], labels[partners]) and (index != partners).all()
    for c in range(5):  # every other image of the class is somebody's partner
        members = torch.nonzero(labels == c)[:, 0]
        assert set(partners[labels[index] == c].tolist()) == set(members.tolist())
    batches = whole(sampled)
    assert len({i for batch in batches for i in batch.index.tolist()}) == 12 * len(batches)  # each image once
    alone = make([40, 30])
    alone.train.labels[0] = 7
    with pytest.raises(SettingError, match=r"classes with one image: \[7\]"):
        ClassPairs(alone.train)


def test_the_other_view_is_another_and_the_clean_one_unchanged():
    for batch in whole(TwoViews(DATA.train)):
        assert not torch.equal(batch.x, batch.other)
    clean = torch.cat([batch.x for batch in DATA.train.clean(64)])
    for batch in whole(CleanBeside(DATA.train)):
        assert torch.equal(batch.other, clean[batch.index]) and (batch.view >= 0).all()
    for views in (0, 2):
        TwoViews(make([40, 30], views=views).train)
    with pytest.raises(SettingError, match="data.views"):
        TwoViews(make([40, 30], views=1).train)


def test_images_without_labels_stand_behind_the_labelled_ones():
    other = make([30, 9])
    sampled = WithUnlabelled(DATA.train, other.train).to("cpu")
    batches = whole(sampled)
    plain = list(DATA.train.batches(12, epoch=0, seed=0))
    assert len(batches) == len(plain)
    for batch, own in zip(batches, plain, strict=True):
        assert batch.x.shape == (24, 1, 6, 6) and torch.equal(batch.x[:12], own.x) and torch.equal(batch.y[:12], own.y)
        assert (batch.y[12:] == -1).all() and (batch.view == -1).all()
    seen = torch.cat([batch.index[12:] for batch in batches]).bincount(minlength=len(other.train))
    assert seen.max() - seen.min() <= 1  # the others come round alike
    again = whole(sampled)
    assert all(torch.equal(a.x, b.x) for a, b in zip(batches, again, strict=True))


def test_parts_of_a_paired_batch():
    batch = whole(ClassPairs(DATA.train))[0]
    one, two = batch.parts(2)
    assert torch.equal(torch.cat([one.other, two.other]), batch.other) and len(one.y) == 6
    assert torch.equal(torch.cat([one.index, two.index]), batch.index)
