"""TensorFlow operations that only compute. What is not named here is refused: a new one is added when it is known."""

from __future__ import annotations

COMPUTE = frozenset(
    """
    Abs Acos Acosh Add AddN AddV2 All Any ArgMax ArgMin Asin Asinh Atan Atan2 Atanh AvgPool AvgPool3D
    BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchNormWithGlobalNormalization BatchToSpace BatchToSpaceND BiasAdd
    BroadcastArgs BroadcastTo Bucketize Cast Ceil ClipByValue Complex ComplexAbs Concat ConcatV2 Conj Const Conv2D
    Conv2DBackpropInput Conv3D Conv3DBackpropInputV2 Cos Cosh Cumprod Cumsum DepthToSpace DepthwiseConv2dNative
    DepthwiseConv2dNativeBackpropInput Diag Div DivNoNan DynamicPartition DynamicStitch Einsum Elu Empty EnsureShape
    Equal Erf Erfc Erfinv Exp ExpandDims Expm1 FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
    FakeQuantWithMinMaxVarsPerChannel Fill Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3
    Gather GatherNd GatherV2 Greater GreaterEqual Identity IdentityN Imag InvertPermutation IRFFT IsFinite IsInf IsNan
    L2Loss LeakyRelu Less LessEqual LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul MatrixBandPart
    MatrixDiag MatrixDiagV2 MatrixDiagV3 MatrixSetDiagV3 Max MaxPool MaxPoolV2 MaxPool3D Maximum Mean Min Minimum
    MirrorPad Mod Mul MulNoNan Neg NextAfter NoOp NonMaxSuppressionV4 NonMaxSuppressionV5 NotEqual OneHot OnesLike Pack
    Pad PadV2 ParallelConcat Placeholder PlaceholderWithDefault Pow PreventGradient Prod RFFT Range Rank Real RealDiv
    Reciprocal Relu Relu6 Reshape ResizeBilinear ResizeNearestNeighbor Reverse ReverseSequence ReverseV2 Rint Roll Round
    Rsqrt ScatterNd SegmentMax SegmentMean SegmentMin SegmentSum Select SelectV2 Selu Shape ShapeN Sigmoid Sign Sin Sinh
    Size Slice Snapshot Softmax Softplus Softsign SpaceToBatch SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square
    SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Tan Tanh TensorListConcatV2 TensorListElementShape
    TensorListFromTensor TensorListGetItem TensorListLength TensorListPushBack TensorListReserve TensorListSetItem
    TensorListStack TensorScatterUpdate Tile TopK TopKV2 Transpose TruncateDiv TruncateMod Unique Unpack
    UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum Where Xdivy Xlog1py Xlogy ZerosLike
    RandomStandardNormal RandomUniform RandomUniformInt StatelessRandomNormalV2 StatelessRandomUniformV2
    StatelessRandomUniformFullIntV2 StatelessRandomGetKeyCounter StatelessRandomGetAlg
    Case If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile While
    Enter Exit LoopCond Merge NextIteration Switch Assert
    """.split()
)

# Variables in memory: their values come from the SavedModel's own checkpoint.
STATE = frozenset(
    "AssignVariableOp AssignAddVariableOp AssignSubVariableOp DisableCopyOnRead ReadVariableOp ResourceGather "
    "VarHandleOp VarIsInitializedOp VariableShape".split()
)

# What the functions that save and restore the checkpoint are made of.
SAVER = frozenset("MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename StaticRegexFullMatch StringJoin".split())
