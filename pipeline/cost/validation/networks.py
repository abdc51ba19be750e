"""The networks that others measured or estimate, with random weights."""

import functools
from collections.abc import Callable

from pipeline.cost.nouns import Kind, Work
from pipeline.cost.validation.network import Network, parallel
from pipeline.cost.work import works
from pipeline.graph.view import view

Branch = list[tuple[int, int | tuple[int, int]]]
"""Convolutions one after another: channels and kernel of each."""


def mobilenet_v1(alpha: float = 1.0, size: int = 224, classes: int = 1001) -> Network:
    """MobileNet v1 (Howard et al. 2017)."""
    net = Network(size, size, 3)

    def width(channels: int) -> int:
        return max(8, int(channels * alpha))

    net.conv(width(32), 3, 2)
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for channels, stride in blocks:
        net.depthwise(stride)
        net.conv(width(channels), 1)
    net.pool(net.shapes[net.last][0], 1)
    net.conv(classes, 1, clamp=False)
    return net


def mobilenet_v1_small() -> Network:
    """MobileNet v1 with a quarter of the channels at 128 x 128."""
    return mobilenet_v1(0.25, 128)


def mobilenet_v1_wake() -> Network:
    """The visual wake words model of MLPerf Tiny."""
    return mobilenet_v1(0.25, 96, 2)


MOBILENET_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
"""Of each stage: the factor of expansion, channels, blocks, the first one's stride."""


def _inverted_residuals(net: Network, alpha: float, finest: int) -> None:
    """The blocks of MobileNet v2; strides beyond ``finest`` in all become dilations."""
    before, reached, dilation = net.shapes[net.last][2], 2, 1
    for factor, channels, count, first in MOBILENET_V2:
        for index in range(count):
            source, stride = net.last, first if index == 0 else 1
            if reached * stride > finest:
                later, stride = dilation * stride, 1
            else:
                later, reached = dilation, reached * stride
            if factor > 1:
                net.conv(before * factor, 1)
            net.depthwise(stride, dilation=dilation)
            dilation = later
            out = net.conv(_eight(channels * alpha), 1, clamp=False)
            if index:
                net.sum(source, out)
            before = _eight(channels * alpha)


def _eight(channels: float) -> int:
    """The nearest multiple of 8, as MobileNet v2 rounds."""
    return max(8, int(channels + 4) // 8 * 8)


def mobilenet_v2(size: int = 224, classes: int = 1000) -> Network:
    """MobileNet v2 (Sandler et al. 2018)."""
    net = Network(size, size, 3)
    net.conv(32, 3, 2)
    _inverted_residuals(net, 1.0, 32)
    net.conv(1280, 1)
    net.pool(net.shapes[net.last][0], 1)
    net.dense(classes)
    return net


def deeplab_v3() -> Network:
    """DeepLabV3 on half of MobileNet v2 at 513 x 513, one output per 16 pixels, without atrous branches."""
    net = Network(513, 513, 3)
    net.conv(16, 3, 2)
    _inverted_residuals(net, 0.5, 16)
    features = net.last
    height, width, _ = net.shapes[features]
    net.pool(height, 1)
    net.conv(256, 1)
    image = net.resize(height, width)
    net.concat(image, net.conv(256, 1, source=features))
    net.conv(256, 1)
    net.conv(21, 1, clamp=False)
    net.resize(513, 513)
    return net


def resnet8() -> Network:
    """The image classifier of MLPerf Tiny."""
    net = Network(32, 32, 3)
    net.conv(16, 3)
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        source = net.last
        net.conv(channels, 3, stride)
        out = net.conv(channels, 3, clamp=False)
        net.sum(source if stride == 1 else net.conv(channels, 1, stride, clamp=False, source=source), out)
    net.pool(8, 1)
    net.dense(10)
    return net


def dense_only() -> Network:
    """The autoencoder of MLPerf Tiny: nothing but fully connected layers."""
    net = Network(1, 1, 640)
    for width in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        net.dense(width, clamp=True)
    net.dense(640)
    return net


def squeezenet(size: int = 224) -> Network:
    """SqueezeNet 1.1 (Iandola et al. 2016)."""
    net = Network(size, size, 3)
    net.conv(64, 3, 2)
    net.pool(3, 2, "max")
    fires = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    for index, (squeeze, expand) in enumerate(fires):
        if index in (2, 4):
            net.pool(3, 2, "max")
        source = net.conv(squeeze, 1)
        net.concat(net.conv(expand, 1, source=source), net.conv(expand, 3, source=source))
    net.conv(1000, 1)
    net.pool(net.shapes[net.last][0], 1)
    return net


def inception_v1() -> Network:
    """Inception v1, or GoogLeNet (Szegedy et al. 2014), with 3x3 in place of 5x5 as in TensorFlow's slim."""
    net = Network(224, 224, 3)
    net.conv(64, 7, 2)
    net.pool(3, 2, "max", same=True)
    net.conv(64, 1)
    net.conv(192, 3)
    cells = [
        (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128), (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
    ]  # fmt: skip
    for index, (one, three_in, three, five_in, five, side) in enumerate(cells):
        if index in (0, 2, 7):
            net.pool(3, 2, "max", same=True)
        source = net.last
        ends = parallel(net, source, [[(one, 1)], [(three_in, 1), (three, 3)], [(five_in, 1), (five, 3)]])
        net.pool(3, 1, "max", same=True, source=source)
        net.concat(*ends, net.conv(side, 1))
    net.pool(7, 1)
    net.dense(1001)
    return net


def inception_v4() -> Network:
    """Inception v4 (Szegedy et al. 2016)."""
    net = Network(299, 299, 3)
    net.conv(32, 3, 2, same=False)
    net.conv(32, 3, same=False)
    source = net.conv(64, 3)
    net.concat(net.pool(3, 2, "max", source=source), net.conv(96, 3, 2, source=source, same=False))
    ends = parallel(net, net.last, [[(64, 1)], [(64, 1), (64, (7, 1)), (64, (1, 7))]])
    source = net.concat(*[net.conv(96, 3, source=end, same=False) for end in ends])
    net.concat(net.conv(192, 3, 2, source=source, same=False), net.pool(3, 2, "max", source=source))
    for _ in range(4):
        _cell(net, [[(96, 1)], [(64, 1), (96, 3)], [(64, 1), (96, 3), (96, 3)]], 96)
    _reduction(net, [[], [(192, 1), (224, 3)]], (384, 256))
    for _ in range(7):
        long: Branch = [(192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))]
        _cell(net, [[(384, 1)], [(192, 1), (224, (1, 7)), (256, (7, 1))], long], 128)
    _reduction(net, [[(192, 1)], [(256, 1), (256, (1, 7)), (320, (7, 1))]], (192, 320))
    for _ in range(3):
        source = net.last
        ends = parallel(net, source, [[(256, 1)], [(384, 1)], [(384, 1), (448, (1, 3)), (512, (3, 1))]])
        split = [net.conv(256, kernel, source=end) for end in ends[1:] for kernel in ((1, 3), (3, 1))]
        net.pool(3, 1, same=True, source=source)
        net.concat(ends[0], *split, net.conv(256, 1))
    net.pool(8, 1)
    net.dense(1001)
    return net


def _cell(net: Network, branches: list[Branch], side: int) -> None:
    """Branches of convolutions beside a pool with a 1x1 convolution of ``side`` channels."""
    source = net.last
    ends = parallel(net, source, branches)
    net.pool(3, 1, same=True, source=source)
    net.concat(*ends, net.conv(side, 1))


def _reduction(net: Network, branches: list[Branch], channels: tuple[int, int]) -> None:
    """Branches that end in a strided convolution, beside a strided pool."""
    source = net.last
    ends = parallel(net, source, branches)
    strided = [net.conv(c, 3, 2, source=end, same=False) for c, end in zip(channels, ends, strict=True)]
    net.concat(*strided, net.pool(3, 2, "max", source=source))


def resnet50() -> Network:
    """ResNet-50, the stride in the 3x3 convolutions (version 1.5)."""
    net = Network(224, 224, 3)
    net.conv(64, 7, 2)
    net.pool(3, 2, "max", same=True)
    for channels, count, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(count):
            source, stride = net.last, first if index == 0 else 1
            net.conv(channels, 1)
            net.conv(channels, 3, stride)
            out = net.conv(4 * channels, 1, clamp=False)
            side = net.conv(4 * channels, 1, stride, clamp=False, source=source) if index == 0 else source
            net.sum(side, out)
    net.pool(7, 1)
    net.dense(1000)
    return net


def yolo_v5s() -> Network:
    """YOLOv5s 6.0 at 640 x 640 with clamps for activations."""
    net = Network(640, 640, 3)
    net.conv(32, 6, 2)
    kept = []
    for channels, count in ((64, 1), (128, 2), (256, 3), (512, 1)):
        net.conv(channels, 3, 2)
        kept.append(_c3(net, channels, count))
    _pyramid_pool(net, 512)
    tops = [net.conv(256, 1)]
    for channels, level in ((256, 2), (128, 1)):
        _up(net, kept[level])
        _c3(net, channels, 1, shortcut=False)
        tops.append(net.conv(128, 1) if channels == 256 else net.last)
    outputs = [tops[2]]
    for channels, top in ((128, tops[1]), (256, tops[0])):
        net.concat(net.conv(channels, 3, 2, source=outputs[-1]), top)
        outputs.append(_c3(net, 2 * channels, 1, shortcut=False))
    for output in outputs:
        net.conv(255, 1, clamp=False, source=output)
    return net


def _c3(net: Network, channels: int, count: int, shortcut: bool = True) -> int:
    """A cross-stage block: half the channels through bottlenecks, the other half past them."""
    source, half = net.last, channels // 2
    net.conv(half, 1)
    for _ in range(count):
        before = net.last
        net.conv(half, 1)
        net.conv(half, 3)
        if shortcut:
            net.sum(before, net.last)
    net.concat(net.last, net.conv(half, 1, source=source))
    return net.conv(channels, 1)


def yolo_v8n() -> Network:
    """YOLOv8n at 640 x 640, without the decoding of boxes.

    The two halves that its blocks split are two convolutions here.
    """
    net = Network(640, 640, 3, activation="swish")
    net.conv(16, 3, 2)
    kept = []
    for channels, count in ((32, 1), (64, 2), (128, 2), (256, 1)):
        net.conv(channels, 3, 2)
        kept.append(_c2f(net, channels, count))
    deepest = _pyramid_pool(net, 256)
    _up(net, kept[2])
    middle = _c2f(net, 128, 1, shortcut=False)
    _up(net, kept[1])
    outputs = [_c2f(net, 64, 1, shortcut=False)]
    for channels, top in ((64, middle), (128, deepest)):
        net.concat(net.conv(channels, 3, 2, source=outputs[-1]), top)
        outputs.append(_c2f(net, 2 * channels, 1, shortcut=False))
    for output in outputs:
        for channels in (64, 80):
            net.conv(channels, 3, source=output)
            net.conv(channels, 3)
            net.conv(channels, 1, clamp=False)
    return net


def _c2f(net: Network, channels: int, count: int, shortcut: bool = True) -> int:
    """A block that joins two halves and the output of every bottleneck."""
    half, source = channels // 2, net.last
    parts = [net.conv(half, 1, source=source), net.conv(half, 1, source=source)]
    for _ in range(count):
        before = net.last
        net.conv(half, 3)
        net.conv(half, 3)
        parts.append(net.sum(before, net.last) if shortcut else net.last)
    net.concat(*parts)
    return net.conv(channels, 1)


def _pyramid_pool(net: Network, channels: int) -> int:
    """Three pools in a row, all joined."""
    parts = [net.conv(channels // 2, 1)]
    parts += [net.pool(5, 1, "max", same=True) for _ in range(3)]
    net.concat(*parts)
    return net.conv(channels, 1)


def _up(net: Network, beside: int) -> None:
    """The last tensor at twice its size, joined with ``beside``."""
    net.resize(*net.shapes[beside][:2])
    net.concat(net.last, beside)


def vgg16_features() -> Network:
    """The convolutions of VGG16 (Simonyan and Zisserman 2014)."""
    net = Network(224, 224, 3)
    for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            net.conv(channels, 3)
        net.pool(2, 2, "max")
    return net


@functools.cache
def works_of(make: Callable[[], Network]) -> tuple[Work, ...]:
    """The works of the network that ``make`` builds."""
    return works(view(make().model()))


@functools.cache
def vgg16_works() -> tuple[Work, ...]:
    """VGG16; its dense layers, 124 MB of weights, as works rather than as an ONNX model."""
    result = list(works_of(vgg16_features))
    for number, (inputs, outputs) in enumerate(((25088, 4096), (4096, 4096), (4096, 1000))):
        size = inputs * outputs
        result.append(Work(
            f"dense{number}", "Gemm", Kind.FC, 1, 1, outputs, 1, 1, inputs, in_bytes=(inputs,), out_bytes=outputs,
            weight_bytes=size + 4 * outputs, macs=size, inputs=result[-1].outputs, outputs=(f"d{number}",),
        ))  # fmt: skip
    return tuple(result)
