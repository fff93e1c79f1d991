"What Record keeps, for TensorBoard: `tensorboard --logdir runs`."
from fastai.basics import Callback
from torch.utils.tensorboard import SummaryWriter

from kdfast.record import MEASURES
from kdfast.runs import Folder


class TensorBoard(Callback):
    "Writes each new row of steps and of epochs as scalars, under the names of its columns, at the end of every epoch."
    order,remove_on_fetch = 80,True # after Record (70)

    def __init__(self,
        folder:Folder, # The run's folder; the events go into its folder tensorboard
    ):
        self.kept_in,self.steps,self.epochs = folder/'tensorboard',0,0

    def before_fit(self): self.writer = SummaryWriter(self.kept_in)

    def after_epoch(self):
        record = self.learn.record
        for row in record.steps[self.steps:]: self.write(dict(zip(('lr', *MEASURES), row[3:])), row[2], 'step')
        for x,row in enumerate(record.epochs[self.epochs:], self.epochs + 1): self.write(row, x, 'epoch')
        self.steps,self.epochs = len(record.steps),len(record.epochs)

    def write(self, row, x, by):
        for name,value in row.items():
            if isinstance(value, float): self.writer.add_scalar(f'{by}/{name}', value, x)

    def after_fit(self): self.writer.close()
