"What a recipe needs of the layers of its networks: fronts, regressors, features."

from functools import cached_property, partial

from torch import Tensor, nn

from kdfast.core.errors import KdfastError
from kdfast.distill.hint import check_front_trains
from kdfast.distill.regressor import regressor
from kdfast.models.embedding import Embedding, embedding
from kdfast.models.front import LAYER, features, front, front_back
from kdfast.runs.options import layer_pairs


class RunLayers:
    "The part of a Run that cuts networks at layers; `dls` and `data` are the run's."

    stage_one = None  # layers and shapes of stage one

    def embedding(
        self,
        network: nn.Module,  # Maps images to logits
    ) -> Embedding:
        "Return a network up to its classifier. Raises KdfastError if it does not end with a linear one."
        return embedding(network, self.xb)

    def guide(
        self,
        student: nn.Module,  # Network to train
        teacher: nn.Module,  # Trained network
        layers: str = f'{LAYER}:{LAYER}',  # The teacher's hint layer and the student's guided layer
        matrix: bool = False,  # Add a regressor even if the shapes already match
    ) -> nn.Module:
        """Return the model of stage one: the student's front, followed by a regressor if the shapes differ.

        Raises KdfastError if no weight of the front trains.
        """
        guided, hint = self.fronts(student, teacher, layers)
        check_front_trains(student, layer_pairs(layers)[0][1], self.xb)
        shapes = [list(features(net, self.xb).shape[1:]) for net in (guided, hint)]
        matrix = matrix or shapes[0] != shapes[1]
        self.stage_one = dict(layers=layers, guided_shape=shapes[0], hint_shape=shapes[1], matrix=matrix)
        return nn.Sequential(guided, self.regressor_between(guided, hint)) if matrix else guided

    @cached_property
    def xb(self):
        "A few images, to compute the shapes of layers"
        return self.dls.one_batch()[0][:8].as_subclass(Tensor)  # as in training

    def fronts(
        self,
        student,  # Network
        teacher,  # Network
        layers,  # TEACHER_LAYER:STUDENT_LAYER
    ):
        "Return the fronts of student and teacher for a pair of layers. Raises KdfastError without them."
        ((hint, guided),) = layer_pairs(layers)
        try:
            return front(student, guided), front(teacher, hint)
        except KdfastError as e:
            raise KdfastError(
                f'{e.message}; the pair {layers} (teacher:student) is set by --hint or --layers, and kdfast layers '
                'STUDENT --teacher TEACHER lists pairs that fit'
            ) from e

    def regressor(
        self,
        student: nn.Module,  # The student, not changed
        teacher: nn.Module,  # The teacher, not changed
        layers: str,  # The teacher's hint layer and the student's guided layer
    ) -> nn.Module:
        "Return a new regressor between two layers. Raises KdfastError if none is possible."
        return self.regressor_between(*self.fronts(student, teacher, layers))

    def regressor_between(
        self,
        guided,  # Front of the student
        hint,  # Front of the teacher
    ):
        "Return a regressor between two fronts. Raises KdfastError if it does not fit progressive resizing."
        layer = regressor(guided, hint, self.xb)
        convolution = layer if isinstance(layer, nn.Linear | nn.Conv2d) else layer[0]
        if self.data.grow == 1 or layer is convolution and getattr(layer, 'kernel_size', (1, 1)) == (1, 1):
            return layer
        raise KdfastError(
            f'--grow {self.data.grow}: the regressor between these layers is a convolution of '
            f'{"×".join(map(str, convolution.kernel_size))}{"" if layer is convolution else ", enlarged"}, '
            'which fits images of one size only: choose layers of equal height and width, or omit --grow'
        )

    def channels(
        self,
        student: nn.Module,  # The student
        teacher: nn.Module,  # The teacher
        layers: str,  # Pairs, TEACHER_LAYER:STUDENT_LAYER,…
    ) -> tuple[list, list]:  # Of the student, of the teacher
        "Return the numbers of channels of the layers. Raises KdfastError if a layer does not exist."
        found = [self.fronts(student, teacher, ':'.join(pair)) for pair in layer_pairs(layers)]
        return tuple([features(net, self.xb).shape[1] for net in nets] for nets in zip(*found))

    def front_back(
        self,
        layers: str = f'{LAYER}:{LAYER}',  # The teacher's hint layer and the student's guided layer
    ):
        "Return a splitter for a Learner, with which `freeze()` freezes the student's front."
        ((_, guided),) = layer_pairs(layers)
        return partial(front_back, layer=guided, xb=self.xb)
