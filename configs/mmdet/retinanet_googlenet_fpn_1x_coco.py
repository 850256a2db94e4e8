# RetinaNet of MMDetection with GoogLeNet in place of ResNet-50: `mim train mmdet THIS_FILE`, or mmdet's tools/train.py.
# The normalisation of the base configuration (ImageNet's, RGB) is what the backbone wants: leave it.
_base_ = ["mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"]

custom_imports = dict(imports=["detector.plugins.mmengine"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,  # nothing of ResNet's
        type="GoogLeNetBackbone",
        weights="torchvision",  # or "bvlc", or a weights file
        out_indices=(2, 3, 4),  # strides 8, 16, 32
        frozen_stages=1,  # the stem, strides 2 and 4
    ),
    neck=dict(in_channels=[480, 832, 1024], start_level=0),
)
optim_wrapper = dict(clip_grad=dict(max_norm=10.0))  # weights without batch norm, such as "bvlc", need it
