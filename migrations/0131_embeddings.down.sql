drop function search_embeddings(real[], text, text[], text[], boolean, bigint);
drop function embedding_distance(real[], real[]);
drop function embeddings_backfill(bigint);
drop trigger items_to_embed_changed on items;
drop trigger items_to_embed_new on items;
drop function items_to_embed();
drop table item_embeddings;
drop table embedding_outbox;
drop table embedding_models;
