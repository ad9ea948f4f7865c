alter table agents drop column accepts_batches;
