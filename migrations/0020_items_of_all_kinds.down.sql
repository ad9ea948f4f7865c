drop index items_by_parent;
drop table items_comment;
