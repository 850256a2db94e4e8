# Faster R-CNN of MMDetection with GoogLeNet in place of ResNet-50; see retinanet_googlenet_fpn_1x_coco.py.
_base_ = ["mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"]

custom_imports = dict(imports=["detector.plugins.mmengine"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="GoogLeNetBackbone",
        weights="torchvision",
        out_indices=(1, 2, 3, 4),  # strides 4, 8, 16, 32
        frozen_stages=1,
    ),
    neck=dict(in_channels=[192, 480, 832, 1024]),
)
optim_wrapper = dict(clip_grad=dict(max_norm=10.0))
