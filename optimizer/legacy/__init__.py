"""Training by tensorflow-model-optimization, which knows Keras 2 only: a process of its own, zygote kind `legacy`.

There `TF_USE_LEGACY_KERAS=1` makes `tf.keras` the old one (`tf_keras`); `keras` beside it is Keras 3 all the same.
"""
